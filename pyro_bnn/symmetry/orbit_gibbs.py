"""Orbit Gibbs: redraw where on its orbit a draw lies, without touching the likelihood.

Given everything else, the log scale ``u`` of a hidden unit has, under normal priors, the density
``exp(k u - (a exp(2u) + b exp(-2u)) / 2)``: its square is generalised inverse Gaussian, with
``a`` and ``b`` the precision-weighted incoming and outgoing squares and ``k`` the number of
incoming minus outgoing weights. Signs and permutations that the prior does not see are drawn
uniformly. The move leaves the posterior invariant and may follow any kernel's step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.mass_graph import Edge, node_masses
from pyro_bnn.symmetry.orbit_conditional import draw
from pyro_bnn.symmetry.scaling import edges_of
from pyro_bnn.symmetry.statements import unit_sums

__all__ = ["OrbitGibbs", "redraw_scales", "sample_finite", "scaled_counts", "self_scaling"]


class OrbitGibbs:
    """A Markov move along the orbits of a symmetry group, under normal priors centred at zero.

    `OrbitMove` reads the priors off a model and moves flat positions.

    Parameters
    ----------
    group : SymmetryGroup
        Discovered on a model (not a bare module), so that it knows what the prior sees.
    prior : dict of str to float or Tensor
        Standard deviations of the normal prior of each site that scales act on: a number, or
        numbers that broadcast against the site.
    sweeps : int
        Passes over all spaces.
    permute : bool
        Whether to redraw permutations and signs too.

    Raises
    ------
    UserError
        If the deviation of a scaled site is missing.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro_bnn.symmetry import discover
    >>> def model(x):
    ...     v = pyro.sample("v", dist.Normal(torch.zeros(2, 8), 1.0).to_event(2))
    ...     w = pyro.sample("w", dist.Normal(torch.zeros(8), 1.0).to_event(1))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("y", dist.Normal(torch.relu(x @ v) @ w, 1.0), obs=x[:, 0])
    >>> move = OrbitGibbs(discover(model, torch.randn(5, 2)), {"v": 1.0, "w": 1.0})
    >>> moved = move({"v": torch.randn(100, 2, 8), "w": torch.randn(100, 8)})
    >>> moved["v"].shape
    torch.Size([100, 2, 8])
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
        self.active = [n for n in group.kind("scale") if n not in self_scaling(group)]
        self.deviation: dict[str, Tensor] = {}
        for site in sorted({t.site for f in group.kind("scale").values() for t in f.terms}):
            if site not in prior:
                raise UserError(f"the prior lacks the standard deviation of site {site!r}")
            self.deviation[site] = torch.as_tensor(prior[site], dtype=torch.float64)
        ones = {site: torch.ones(1, *shape) for site, shape in group.shapes.items()}
        self._counts = scaled_counts(group, ones)

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
        amplitudes = {
            site: params[site].double() / deviation.to(params[site].device)
            for site, deviation in self.deviation.items()
        }
        scales = redraw_scales(
            self.group, amplitudes, self._counts, self.active, self.sweeps, generator
        )
        moved = GroupElement(self.group, {}, scales, {}, batch).apply(params)
        if self.permute:
            moved = sample_finite(self.group, batch, generator).apply(moved)
        return {site: moved[site].to(value.dtype) for site, value in params.items()}


def redraw_scales(
    group: SymmetryGroup,
    amplitudes: Mapping[str, Tensor],
    counts: Mapping[str, Tensor],
    active: Sequence[str],
    sweeps: int,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """Draw the log scales of one family after the other, given the other families.

    Parameters
    ----------
    group : SymmetryGroup
        Its families of scales say with which exponent each amplitude moves.
    amplitudes : dict of str to Tensor
        ``(batch, *shape)`` for each scaled site: half of its square is minus the log density.
    counts : dict of str to Tensor
        ``(1, size)`` for each family: by how much the log volume grows with each log scale.
    active : sequence of str
        Families to draw; the others stay.
    sweeps : int
        Passes over the families.
    generator : torch.Generator, optional

    Returns
    -------
    dict of str to Tensor
        ``(batch, size)`` for each active family, float64.
    """
    families = group.kind("scale")
    edges = edges_of(group, amplitudes, None, True)
    if not edges or not active:
        return {}
    mass = edges[0].mass
    u = [mass.new_zeros(mass.shape[0], family.size) for family in families.values()]
    for _ in range(sweeps):
        for node, name in enumerate(families):
            if name in active:
                masses = node_masses(edges, u, node)
                slope = counts[name].to(mass.device).expand_as(u[node])
                u[node] = u[node] + draw(slope, masses, generator)
    return {name: u[node] for node, name in enumerate(families) if name in active}


def scaled_counts(group: SymmetryGroup, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return by how much the log volume grows with the log scale of each unit.

    Parameters
    ----------
    group : SymmetryGroup
    weights : dict of str to Tensor
        ``(1, *shape)`` for each site: what an entry counts.

    Returns
    -------
    dict of str to Tensor
        ``(1, size)`` for each family of scales.
    """
    return {name: unit_sums(group, f, weights) for name, f in group.kind("scale").items()}


def self_scaling(group: SymmetryGroup) -> list[str]:
    """Name the families whose units scale one another, so that they cannot be drawn together.

    They act on both sides of one weight, as on that from a residual stream to itself.
    """
    edges = edges_of(group, {s: torch.ones(1, *n) for s, n in group.shapes.items()}, None, True)
    names = list(group.kind("scale"))
    return [name for node, name in enumerate(names) if _interact(edges, node)]


def sample_finite(
    group: SymmetryGroup, batch: int, generator: torch.Generator | None
) -> GroupElement:
    """Draw permutations and signs, uniformly, of those that leave the prior alone."""
    element = group.sample(generator, batch)
    kept = group.preserves_prior
    return GroupElement(
        group,
        {n: p for n, p in element.permutations.items() if kept.get(n, False)},
        {},
        {n: s for n, s in element.signs.items() if kept.get(n, False)},
        batch,
    )


def _interact(edges: Sequence[Edge], node: int) -> bool:
    return any(edge.nodes.count(node) > 1 for edge in edges)
