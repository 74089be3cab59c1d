"""Orbit Gibbs: redraw where on its orbit a draw lies, without touching the likelihood.

Given everything else, the log scale ``u`` of a hidden unit has, under normal priors, the density
``exp(k u - (a exp(2u) + b exp(-2u)) / 2)``: its square is generalised inverse Gaussian, with
``a`` and ``b`` the precision-weighted incoming and outgoing squares and ``k`` the number of
incoming minus outgoing weights. It is log-concave and drawn exactly by rejection from two
exponential tails and a flat top (Devroye, 1986). Signs and permutations that the prior does not
see are drawn uniformly. The move leaves the posterior invariant and may follow any kernel's
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry.balance import Edge, node_masses
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.identities import unit_sums
from pyro_bnn.symmetry.scaling import edges_of

Masses = dict[float, Tensor]


class OrbitGibbs:
    """A Markov move along the orbits of a symmetry group.

    Parameters
    ----------
    group : SymmetryGroup
        Discovered on a model (not a bare module), so that it knows what the prior sees.
    prior : dict of str to float or Tensor
        Standard deviation of the normal prior of each site that scales act on, centred at zero.
    sweeps : int
        Passes over all spaces.
    permute : bool
        Whether to redraw permutations and signs too.

    Raises
    ------
    UserError
        If the deviation of a scaled site is missing, or is not one number.
    """

    def __init__(
        self,
        group: SymmetryGroup,
        prior: Mapping[str, Any],
        *,
        sweeps: int = 1,
        permute: bool = True,
    ) -> None:
        self.group = group
        self.sweeps = sweeps
        self.permute = permute
        self.precision: dict[str, float] = {}
        for site in sorted({t.site for f in group.kind("scale").values() for t in f.terms}):
            if site not in prior:
                raise UserError(f"the prior lacks the standard deviation of site {site!r}")
            deviation = torch.as_tensor(prior[site], dtype=torch.float64).flatten()
            if not bool((deviation == deviation[0]).all()):
                raise UserError(
                    f"the prior of site {site!r} has several deviations: orbit Gibbs needs one"
                )
            self.precision[site] = float(deviation[0]) ** -2

    def __call__(
        self, params: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Move draws along their orbits.

        Parameters
        ----------
        params : dict of str to Tensor
            ``(batch, *shape)`` for each site.
        generator : torch.Generator, optional
        """
        batch = next(iter(params.values())).shape[0]
        element = GroupElement(self.group, {}, self.log_scales(params, generator), {}, batch)
        moved = element.apply(params)
        if self.permute:
            moved = self._finite(batch, generator).apply(moved)
        return {site: moved[site].to(value.dtype) for site, value in params.items()}

    def log_scales(
        self, params: Mapping[str, Tensor], generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Draw the log scales of every space given the others, space after space."""
        names = list(self.group.kind("scale"))
        edges = edges_of(self.group, params, self.precision, True)
        batch = next(iter(params.values())).shape[0]
        u = [torch.zeros(batch, self.group.families[n].size, dtype=torch.float64) for n in names]
        for _ in range(self.sweeps):
            for node, name in enumerate(names):
                if _interact(edges, node):
                    continue
                masses = node_masses(edges, u, node)
                count = unit_sums(
                    self.group,
                    self.group.families[name],
                    {s: torch.ones(1, *shape) for s, shape in self.group.shapes.items()},
                )
                u[node] = u[node] + draw(count.expand_as(u[node]), masses, generator)
        return dict(zip(names, u, strict=True))

    def _finite(self, batch: int, generator: torch.Generator | None) -> GroupElement:
        """Draw the permutations and signs that leave the prior alone."""
        element = self.group.sample(generator, batch)
        kept = self.group.preserves_prior
        return GroupElement(
            self.group,
            {n: p for n, p in element.permutations.items() if kept.get(n, False)},
            {},
            {n: s for n, s in element.signs.items() if kept.get(n, False)},
            batch,
        )


def draw(count: Tensor, masses: Masses, generator: torch.Generator | None) -> Tensor:
    """Draw from densities ``exp(count u - sum_e masses[e] exp(2 e u) / 2)``.

    Parameters
    ----------
    count : Tensor
        ``(batch, size)``, the linear coefficient.
    masses : dict of float to Tensor
        ``(batch, size)`` for each exponent.
    generator : torch.Generator, optional

    Returns
    -------
    Tensor
        ``(batch, size)``; zero where the density is improper.
    """
    shape = count.shape
    flat = {e: m.reshape(-1) for e, m in masses.items()}
    slope = count.reshape(-1)
    proper = torch.stack([m > 0 for m in flat.values()]).all(0)
    only_up = all(e > 0 for e in flat) & bool((slope <= 0).any())
    only_down = all(e < 0 for e in flat) & bool((slope >= 0).any())
    if only_up or only_down:
        proper = torch.zeros_like(proper)
    flat = {e: m.where(proper, 1.0) for e, m in flat.items()}
    mode = _mode(slope, flat)
    top = _log_density(mode, slope, flat)
    left, right = _shoulder(mode, top, slope, flat, -1.0), _shoulder(mode, top, slope, flat, 1.0)
    up, down = _derivative(left, slope, flat), _derivative(right, slope, flat)
    start = left + (top - _log_density(left, slope, flat)) / up
    end = right + (top - _log_density(right, slope, flat)) / down
    areas = torch.stack([1 / up, end - start, -1 / down])
    result = torch.zeros_like(slope)
    waiting = proper.nonzero().flatten()
    while len(waiting):
        uniform = torch.rand(3, len(waiting), generator=generator, dtype=torch.float64)
        share = areas[:, waiting]
        pick = uniform[0] * share.sum(0)
        tail = uniform[1].clamp_min(1e-300).log()
        low, high = start[waiting], end[waiting]
        in_left, in_middle = pick < share[0], pick < share[0] + share[1]
        proposal = torch.where(
            in_left,
            low + tail / up[waiting],
            torch.where(in_middle, low + uniform[1] * (high - low), high + tail / down[waiting]),
        )
        cover = top[waiting] + torch.where(in_left | ~in_middle, tail, 0.0)
        here = {e: m[waiting] for e, m in flat.items()}
        level = _log_density(proposal, slope[waiting], here)
        accepted = uniform[2].log() <= level - cover
        result[waiting[accepted]] = proposal[accepted]
        waiting = waiting[~accepted]
    return result.reshape(shape)


def _log_density(u: Tensor, slope: Tensor, masses: Masses) -> Tensor:
    return slope * u - sum(
        (0.5 * m * (2 * e * u).exp() for e, m in masses.items()), torch.zeros_like(u)
    )


def _derivative(u: Tensor, slope: Tensor, masses: Masses) -> Tensor:
    return slope - sum((e * m * (2 * e * u).exp() for e, m in masses.items()), torch.zeros_like(u))


def _mode(slope: Tensor, masses: Masses) -> Tensor:
    """Find the mode by safeguarded Newton steps."""
    u = torch.zeros_like(slope)
    for _ in range(200):
        gradient = _derivative(u, slope, masses)
        bend = sum(
            (2 * e * e * m * (2 * e * u).exp() for e, m in masses.items()), torch.zeros_like(u)
        )
        step = (gradient / bend.clamp_min(1e-300)).clamp(-0.7, 0.7)
        u = u + step
        if bool((step.abs() < 1e-10).all()):
            break
    return u


def _shoulder(mode: Tensor, top: Tensor, slope: Tensor, masses: Masses, side: float) -> Tensor:
    """Find a point on one side of the mode where the log density is about one lower."""
    bend = sum(
        (2 * e * e * m * (2 * e * mode).exp() for e, m in masses.items()), torch.zeros_like(mode)
    )
    width = (2 / bend).sqrt()
    for _ in range(60):
        drop = top - _log_density(mode + side * width, slope, masses)
        width = torch.where(drop > 2, width / 1.5, torch.where(drop < 0.5, width * 1.3, width))
        if bool(((drop <= 2) & (drop >= 0.5)).all()):
            break
    return mode + side * width


def _interact(edges: list[Edge], node: int) -> bool:
    """Whether units of one space feel each other, so that they cannot be drawn together."""
    return any(edge.nodes.count(node) > 1 for edge in edges)
