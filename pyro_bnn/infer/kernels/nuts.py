"""The no-U-turn sampler, multinomial and iterative, over a batch of chains.

Hoffman & Gelman 2014; multinomial weights and the generalised U-turn criterion are those of
Betancourt 2017; the iterative doubling that needs only log2 checkpoints is that of Phan, Pradhan &
Jankowiak 2019 (appendix A).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.kernels.hamiltonian import (
    DIVERGENCE,
    Density,
    Info,
    Metric,
    State,
    leapfrog,
)
from pyro_bnn.infer.kernels.hamiltonian_kernel import HamiltonianKernel
from pyro_bnn.logdensity import LogDensity

__all__ = ["NUTS"]


class NUTS(HamiltonianKernel):
    """The no-U-turn sampler; all chains grow their trees side by side.

    A chain whose tree is complete waits for the others: the batch costs as many gradients as its
    longest tree. `HMC` with jitter has no such wait. While warm-up lets each chain have a step size
    of its own, trees have a depth of `first_tree_depth` at most: one chain with a tiny step would
    have all others wait for trees of the full depth, in a phase that only has to reach the typical
    set.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model.
    step_size : float
        Where the adaptation starts, or the step size itself when it is not adapted.
    max_tree_depth : int
        A trajectory has at most ``2**max_tree_depth - 1`` steps.
    adapt_step_size, adapt_mass_matrix, full_mass, target_accept_prob, init_strategy
        As in `pyro.infer.NUTS`.
    """

    first_tree_depth = 5
    """Depth of trees, at most, while each chain has a step size of its own."""

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 0.1,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool = False,
        target_accept_prob: float = 0.8,
        max_tree_depth: int = 10,
        init_strategy: Callable[..., Any] | None = None,
        **pyro_only: Any,
    ) -> None:
        super().__init__(
            model,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            full_mass=full_mass,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
            **pyro_only,
        )
        if max_tree_depth < 1:
            raise UserError(f"NUTS: max_tree_depth is {max_tree_depth}, give at least 1")
        self.max_tree_depth = max_tree_depth

    def step(
        self, state: State, density: Density, generator: torch.Generator
    ) -> tuple[State, Info]:
        """Grow each chain's tree until it turns, and draw from its points."""
        metric = state.metric
        momentum = metric.draw_momentum(state.position, generator)
        start_energy = state.potential + metric.kinetic_energy(momentum)
        tree = _Tree.at(state, momentum, start_energy)
        growing = torch.ones_like(start_energy, dtype=torch.bool)
        depth = torch.zeros_like(start_energy, dtype=torch.int32)
        gradients = 0
        totals = _Totals.zero(start_energy)

        for level in range(self._depth_limit(state)):
            forward = _uniform(start_energy, generator) < 0.5
            subtree, complete, totals, spent = _grow(
                tree, level, forward, growing, start_energy, density, state, generator, totals
            )
            gradients += spent
            depth = depth + growing
            tree = _join(tree, subtree, forward, complete, generator)
            turning = _is_turning(metric, tree.left.momentum, tree.right.momentum, tree.sum)
            growing = complete & ~turning
            if not bool(growing.any()):
                break

        chosen = tree.proposal
        new = state._replace(
            position=chosen.position, potential=chosen.potential, gradient=chosen.gradient
        )
        stats = {
            "lp": -new.potential,
            "acceptance_rate": totals.acceptance / totals.leaves,
            "diverging": totals.diverging,
            "energy": chosen.energy,
            "n_steps": totals.leaves.to(torch.int32),
            "tree_depth": depth,
            "step_size": state.step_size.expand(start_energy.shape),
        }
        return new, Info(stats, gradients)

    def _depth_limit(self, state: State) -> int:
        if state.step_size.ndim == 0:
            return self.max_tree_depth
        return min(self.max_tree_depth, self.first_tree_depth)


class _Edge(NamedTuple):
    """An end of a trajectory, ``(chain, dim)`` each."""

    position: Tensor
    momentum: Tensor
    gradient: Tensor


class _Point(NamedTuple):
    """A proposed draw: ``(chain, dim)``, ``(chain,)``, ``(chain, dim)``, ``(chain,)``."""

    position: Tensor
    potential: Tensor
    gradient: Tensor
    energy: Tensor


_Parts = TypeVar("_Parts", _Edge, _Point)


class _Tree(NamedTuple):
    """A trajectory: its ends, a draw from its points, their log weight and summed momentum."""

    left: _Edge
    right: _Edge
    proposal: _Point
    log_weight: Tensor
    sum: Tensor

    @classmethod
    def at(cls, state: State, momentum: Tensor, energy: Tensor) -> _Tree:
        edge = _Edge(state.position, momentum, state.gradient)
        point = _Point(state.position, state.potential, state.gradient, energy)
        return cls(edge, edge, point, torch.zeros_like(energy), momentum)


class _Totals(NamedTuple):
    """Sums over all points that a chain visited: ``(chain,)`` each."""

    acceptance: Tensor
    leaves: Tensor
    diverging: Tensor

    @classmethod
    def zero(cls, like: Tensor) -> _Totals:
        return cls(
            torch.zeros_like(like),
            torch.zeros_like(like),
            torch.zeros_like(like, dtype=torch.bool),
        )


def _grow(
    tree: _Tree,
    level: int,
    forward: Tensor,
    growing: Tensor,
    start_energy: Tensor,
    density: Density,
    state: State,
    generator: torch.Generator,
    totals: _Totals,
) -> tuple[_Tree, Tensor, _Totals, int]:
    """Build a subtree of 2**level points off the end that each chain chose.

    Returns the subtree, the chains for which it is complete (neither turning nor divergent), the
    running totals and the number of leapfrog steps made. Chains that have stopped are carried
    along, their values unused.
    """
    metric = state.metric
    edge = _where(forward, tree.right, tree.left)
    signed = torch.where(forward, state.step_size, -state.step_size)
    proposal = tree.proposal
    log_weight = torch.full_like(start_energy, -torch.inf)
    total = torch.zeros_like(tree.sum)
    checkpoints: dict[int, tuple[Tensor, Tensor]] = {}
    alive = growing
    spent = 0

    for leaf in range(2**level):
        position, momentum, potential, gradient = leapfrog(
            edge.position, edge.momentum, edge.gradient, density, signed, metric
        )
        spent += 1
        moved = _Edge(position, momentum, gradient)
        edge = _where(alive, moved, edge)
        energy = potential + metric.kinetic_energy(momentum)
        rise = torch.nan_to_num(energy - start_energy, nan=torch.inf)
        diverging = rise > DIVERGENCE
        totals = _Totals(
            totals.acceptance + torch.where(alive, torch.exp(-rise).clamp(max=1.0), 0.0),
            totals.leaves + alive,
            totals.diverging | (alive & diverging),
        )

        # Progressive multinomial sampling within the subtree.
        grown = torch.logaddexp(log_weight, -rise)
        take = alive & (torch.log(_uniform(rise, generator)) < -rise - grown)
        point = _Point(position, potential, gradient, energy)
        proposal = _where(take, point, proposal)
        log_weight = torch.where(alive, grown, log_weight)
        total = torch.where(alive[:, None], total + momentum, total)

        alive = alive & ~diverging & ~_turned_inside(leaf, momentum, total, checkpoints, metric)
        if not bool(alive.any()):
            break
    # A subtree runs from its first point to its last, whichever way time went.
    subtree = _Tree(edge, edge, proposal, log_weight, total)
    return subtree, alive, totals, spent


def _turned_inside(
    leaf: int,
    momentum: Tensor,
    total: Tensor,
    checkpoints: dict[int, tuple[Tensor, Tensor]],
    metric: Metric,
) -> Tensor:
    """Check every balanced subtree that ends at this leaf; keep a checkpoint where one starts.

    An even leaf starts subtrees; its slot is the number of set bits of ``leaf / 2``. An odd leaf
    ends one subtree for each trailing set bit, whose first leaves are in the slots just below.
    """
    slot = (leaf >> 1).bit_count()
    if leaf % 2 == 0:
        checkpoints[slot] = (momentum, total)
        return torch.zeros_like(momentum[:, 0], dtype=torch.bool)
    trailing = ((leaf ^ (leaf + 1)) + 1).bit_length() - 2
    turned = torch.zeros_like(momentum[:, 0], dtype=torch.bool)
    for k in range(slot, slot - trailing, -1):
        first, total_then = checkpoints[k]
        turned = turned | _is_turning(metric, first, momentum, total - total_then + first)
    return turned


def _join(
    tree: _Tree, subtree: _Tree, forward: Tensor, complete: Tensor, generator: torch.Generator
) -> _Tree:
    """Add complete subtrees to their trees; prefer the new half (biased progressive sampling)."""
    uniform = _uniform(tree.log_weight, generator)
    take = complete & (torch.log(uniform) < subtree.log_weight - tree.log_weight)
    log_weight = torch.logaddexp(tree.log_weight, subtree.log_weight)
    return _Tree(
        _where(complete & ~forward, subtree.left, tree.left),
        _where(complete & forward, subtree.right, tree.right),
        _where(take, subtree.proposal, tree.proposal),
        torch.where(complete, log_weight, tree.log_weight),
        torch.where(complete[:, None], tree.sum + subtree.sum, tree.sum),
    )


def _is_turning(metric: Metric, left: Tensor, right: Tensor, total: Tensor) -> Tensor:
    """Whether going on would bring the ends of a trajectory nearer: ``(chain,)``."""
    centred = metric.velocity(total - 0.5 * (left + right))
    return ((left * centred).sum(-1) <= 0) | ((right * centred).sum(-1) <= 0)


def _where(condition: Tensor, one: _Parts, other: _Parts) -> _Parts:
    return type(one)(
        *(
            torch.where(condition[:, None] if a.ndim == 2 else condition, a, b)
            for a, b in zip(one, other, strict=True)
        )
    )


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)
