"""The quotient: every draw replaced by one chosen point of its orbit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import xarray as xr
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry.align import align, barycentre
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.scaling import Scaled, min_mass, unit_norm
from pyro_bnn.symmetry.shear import sheared
from pyro_bnn.symmetry.sign import positive
from pyro_bnn.symmetry.sort import Rule, margin, sort
from pyro_bnn.symmetry.translation import settle

Scaling = Literal["min-mass", "unit-norm"]
REFERENCE_DRAWS = 200
Permutation = Literal["sort", "align", "weight-matching"]


@dataclass(frozen=True)
class Canonical:
    """Canonical draws and how they were reached.

    Attributes
    ----------
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.
    element : GroupElement
        What was applied to the draws.
    nan : Tensor
        ``(batch,)``, draws with a weight that is not finite: left as they are.
    residual : Tensor
        ``(batch,)``, largest relative imbalance of incoming and outgoing mass that is left by
        the minimum of mass.
    degenerate : Tensor
        ``(batch,)``, number of units whose mass has no minimum (nothing comes in, or nothing
        goes out): they are scaled to unit mass.
    margin : Tensor
        ``(batch,)``, smallest difference of the sort keys of two units that are neighbours,
        over the deviation of the keys: how near the draw is to another order. Infinite where
        nothing is sorted.
    """

    params: dict[str, Tensor]
    element: GroupElement
    nan: Tensor
    residual: Tensor
    degenerate: Tensor
    margin: Tensor


class Quotient:
    """A canonical map: one point of every orbit of a symmetry group.

    Steps are taken in the order in which each leaves the earlier ones alone: translations,
    scales, signs, permutations. The function of the network does not change, and no Jacobian is
    owed: the canonical draws are draws from the pushed-forward posterior.

    Parameters
    ----------
    group : SymmetryGroup
    scaling : {"min-mass", "unit-norm"}, optional
        Representative of the scales: the least sum of squared weights, or incoming weights of
        norm one; None leaves them alone.
    sign : bool
        Whether to settle signs.
    permutation : {"sort", "align", "weight-matching"}, optional
        Representative of the permutations; None leaves them alone. ``"align"`` sorts and then
        maximises the overlap with a reference by Frank-Wolfe; ``"weight-matching"`` climbs from
        the labels as they are, and is not a canonical map.
    rule : {"first", "max", "mean", "norm"}
        What units are sorted by.
    precision : dict of str to float, optional
        Weight of each site's squares in the mass: with the prior precisions, min-mass is the
        most probable point of the orbit.
    biases : bool
        Whether sites with one axis count in the mass.
    reference : dict of str to Tensor, optional
        What to align to, ``shape`` for each site: a canonical draw, or the barycentre of some
        (`pyro_bnn.symmetry.barycentre`). By default the barycentre of the first draws seen.

    Raises
    ------
    UserError
        If an option is not one of these.

    Examples
    --------
    >>> from torch import nn
    >>> from pyro_bnn.symmetry import discover
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> quotient = Quotient(discover(net, torch.zeros(5, 2)))
    >>> draws = {name: torch.randn(10, *p.shape) for name, p in net.named_parameters()}
    >>> canonical, element = quotient.canonicalize(draws)
    >>> again, _ = quotient.canonicalize(quotient.group.sample(batch=10).apply(draws))
    >>> all(torch.equal(canonical[name], again[name]) for name in draws)
    True
    """

    def __init__(
        self,
        group: SymmetryGroup,
        *,
        scaling: Scaling | None = "min-mass",
        sign: bool = True,
        permutation: Permutation | None = "sort",
        rule: Rule = "first",
        precision: Mapping[str, float] | None = None,
        biases: bool = True,
        reference: Mapping[str, Tensor] | None = None,
    ) -> None:
        _one_of("scaling", scaling, get_args(Scaling))
        _one_of("permutation", permutation, get_args(Permutation))
        _one_of("rule", rule, get_args(Rule))
        self.group = group
        self.scaling = scaling
        self.sign = sign
        self.permutation = permutation
        self.rule = rule
        self.precision = dict(precision or {})
        self.biases = biases
        self.reference = None if reference is None else dict(reference)

    def canonicalize(self, params: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], GroupElement]:
        """Map draws to their representatives.

        Parameters
        ----------
        params : dict of str to Tensor
            ``(batch, *shape)`` for each site of the group; other entries pass unchanged.

        Returns
        -------
        params : dict of str to Tensor
        element : GroupElement
            What was applied: ``element.inverse().apply(canonical)`` restores the draws.

        Raises
        ------
        UserError
            If a site of the network is missing or has another shape.
        """
        result = self.reduce(params)
        return result.params, result.element

    def reduce(self, params: Mapping[str, Tensor]) -> Canonical:
        """Map draws to their representatives, with a report on each draw."""
        self._check(params)
        nan = self._not_finite(params)
        batch = nan.shape[0]
        element = self.group.identity(batch)
        if self.group.trivial or batch == 0:
            none = torch.zeros(batch)
            return Canonical(dict(params), element, nan, none, none, none + torch.inf)
        working = {
            site: params[site]
            .double()
            .masked_fill(nan.reshape(-1, *[1] * (params[site].ndim - 1)), 0.0)
            for site in self.group.shapes
        }
        working, element = settle(self.group, working)
        # signs and scales act plainly in sheared coordinates, and so do all steps from here on
        working = sheared(self.group, working)
        plain = replace(self.group, shears=())
        scaled = self._scaled(plain, working)
        working = scaled.element.apply(working)
        element = scaled.element @ element
        if self.sign:
            working, step = positive(plain, working)
            element = step @ element
        distance = torch.full((batch,), torch.inf)
        if self.permutation in ("sort", "align"):
            working, step = sort(plain, working, self.rule)
            element = step @ element
            distance = margin(plain, working, self.rule)
        if self.permutation in ("align", "weight-matching"):
            if self.reference is None:
                seen = {site: values[~nan][:REFERENCE_DRAWS] for site, values in working.items()}
                self.reference = barycentre(plain, seen)
            start = "barycentre" if self.permutation == "align" else "identity"
            aligned = align(plain, working, self.reference, start=start)
            element = aligned.element @ element
        element = _spare(replace(element, group=self.group), nan)
        return Canonical(
            element.apply(params), element, nan, scaled.residual, scaled.degenerate, distance
        )

    def apply(
        self,
        trace: xr.DataTree | str | Path,
        out: str | Path | None = None,
        *,
        source: Any = None,
    ) -> xr.DataTree | Path:
        """Add the groups ``canonical_posterior`` and ``symmetry`` to a trace.

        Parameters
        ----------
        trace : xarray.DataTree or path
            A trace in memory, which is not changed; or a run directory or NetCDF file, into
            which the groups are streamed block by block of draws.
        out : path, optional
            Write a new file instead of adding to the file `trace`.
        source : LogDensity, optional
            The network: if given, its output is compared before and after on a few draws, and
            the largest relative change is recorded as the attribute ``function_error``.

        Returns
        -------
        xarray.DataTree or Path
            The trace with its new groups, or the file that holds it.

        Raises
        ------
        UserError
            If the trace has no posterior, its sites are not those of the network, or the
            canonical draws are not the same functions.
        """
        from pyro_bnn.symmetry import labelled

        return labelled.apply(self, trace, out, source)

    def restore(self, trace: xr.DataTree) -> xr.Dataset:
        """Return the original draws from the canonical ones and the stored elements."""
        from pyro_bnn.symmetry import labelled

        return labelled.restore(trace)

    def _scaled(self, group: SymmetryGroup, params: Mapping[str, Tensor]) -> Scaled:
        if self.scaling == "min-mass":
            return min_mass(group, params, precision=self.precision, biases=self.biases)
        if self.scaling == "unit-norm":
            return unit_norm(group, params)
        batch = next(iter(params.values())).shape[0]
        return Scaled(group.identity(batch), torch.zeros(batch), torch.zeros(batch))

    def _check(self, params: Mapping[str, Tensor]) -> None:
        require_sites(self.group, {site: tuple(t.shape[1:]) for site, t in params.items()})

    def _not_finite(self, params: Mapping[str, Tensor]) -> Tensor:
        sites = [params[site] for site in self.group.shapes]
        bad = [~torch.isfinite(t).reshape(t.shape[0], -1).all(-1) for t in sites]
        return torch.stack(bad).any(0) if bad else torch.zeros(0, dtype=torch.bool)


def require_sites(group: SymmetryGroup, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that draws have the sites of the network, in their shapes.

    Parameters
    ----------
    group : SymmetryGroup
    shapes : dict of str to tuple of int
        Shape of each site of the draws, without chain and draw axes.

    Raises
    ------
    UserError
        If a site is missing or has another shape.
    """
    missing = [site for site in group.shapes if site not in shapes]
    if missing:
        raise UserError(
            f"the draws lack {', '.join(repr(site) for site in missing[:3])}"
            f"{' and others' if len(missing) > 3 else ''}, which the network has: "
            "was the trace made from another model?"
        )
    for site, shape in group.shapes.items():
        if tuple(shapes[site]) != shape:
            raise UserError(
                f"site {site!r} has shape {tuple(shapes[site])} in the draws and {shape} in the "
                "network: was the trace made from another model?"
            )


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UserError(f"{name} {value!r} is not one of {', '.join(map(repr, allowed))}")


def _spare(element: GroupElement, nan: Tensor) -> GroupElement:
    """Let an element leave some draws as they are."""
    if not nan.any():
        return element
    permutations = {}
    for name, permutation in element.permutations.items():
        same = torch.arange(permutation.shape[-1], device=permutation.device)
        mask = nan.reshape(-1, *[1] * (permutation.ndim - 1))
        permutations[name] = torch.where(mask, same, permutation)
    scales = {n: u.masked_fill(nan[:, None], 0.0) for n, u in element.log_scales.items()}
    signs = {n: s.masked_fill(nan[:, None], 1) for n, s in element.signs.items()}
    added = {
        n: r.masked_fill(nan.reshape(-1, *[1] * (r.ndim - 1)), 0.0)
        for n, r in element.added.items()
    }
    return GroupElement(element.group, permutations, scales, signs, element.batch, added)
