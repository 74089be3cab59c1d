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
from pyro_bnn.symmetry.activation_matching import Activations
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.idle_units import idle_last, take_out
from pyro_bnn.symmetry.matching import Matcher, Reference
from pyro_bnn.symmetry.required_sites import require_sites
from pyro_bnn.symmetry.scaling import Scaled, min_mass, unit_norm
from pyro_bnn.symmetry.shear import sheared
from pyro_bnn.symmetry.sign import positive
from pyro_bnn.symmetry.sort import Rule, margin, sort
from pyro_bnn.symmetry.translation import settle
from pyro_bnn.tasks import Map

Scaling = Literal["min-mass", "unit-norm"]
Permutation = Literal[
    "sort", "align", "weight-matching", "activation-matching", "nearest-neighbour"
]


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
        ``(batch,)``, number of units whose mass has no minimum: idle ones, and those whose scale
        a norm forgets, which are scaled to unit mass.
    margin : Tensor
        ``(batch,)``, how near the draw is to another order: of sorted draws, the smallest
        difference of the keys of two units that are neighbours, over the deviation of the keys;
        of matched draws, the loss of cosine similarity to the reference by the cheapest exchange
        of two units; with nearest neighbours, the least lead of a label's probability. Infinite
        where nothing is ordered.
    idle : Tensor
        ``(batch,)``, number of units that nothing comes in to or nothing goes out of: their
        weights are set to zero and they are sorted last. The element restores them.
    last : dict of str to Tensor, optional
        Where draws are matched to their predecessors, what the next ones follow.
    """

    params: dict[str, Tensor]
    element: GroupElement
    nan: Tensor
    residual: Tensor
    degenerate: Tensor
    margin: Tensor
    idle: Tensor
    last: dict[str, Tensor] | None = None


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
    permutation : str, optional
        Representative of the permutations; None leaves them alone.

        - ``"sort"``: by a statistic of a unit's weights (`rule`).
        - ``"align"``: sorted, then as close to a reference as permutations and signs can bring
          them, by Frank-Wolfe.
        - ``"activation-matching"``: units matched by what they compute (`activations`).
        - ``"nearest-neighbour"``: signs by a hyperplane, labels by similarity to units that
          have labels already (Wiese et al., 2023), for tanh networks.
        - ``"weight-matching"``: climbs from the labels as they are (Ainsworth et al., 2023); it
          is not a canonical map.
    rule : {"first", "max", "mean", "norm"}
        What units are sorted by.
    precision : dict of str to float, optional
        Weight of each site's squares in the mass: with the prior precisions, min-mass is the
        most probable point of the orbit.
    biases : bool
        Whether sites with one axis count in the mass.
    reference : dict of str to Tensor or {"barycentre", "first", "previous"}
        What draws are matched to: the barycentre of the first draws seen, the first of them,
        the draw before in the same chain (of `canonicalize`, in the same call), or given
        weights, ``shape`` for each site: a canonical draw, or the barycentre of some
        (`pyro_bnn.symmetry.barycentre`).
    activations : Activations, optional
        For activation matching (`pyro_bnn.symmetry.activations`); `apply` takes them from its
        `source` if they are not given.

    Raises
    ------
    UserError
        If an option is not one of these, or the precision or the reference does not fit the
        sites of the network.

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
        reference: Mapping[str, Tensor] | Reference = "barycentre",
        activations: Activations | None = None,
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
        unknown = [site for site in self.precision if site not in group.shapes]
        if unknown:
            raise UserError(f"precision names {unknown[0]!r}, which is no site of the network")
        if isinstance(reference, str):
            _one_of("reference", reference, get_args(Reference))
            self.reference: Mapping[str, Tensor] | Reference = reference
        else:
            _require_reference(group, reference)
            self.reference = dict(reference)
        self.activations = activations
        self._matcher = self._new_matcher()

    def again(self, activations: Activations | None = None) -> Quotient:
        """Return the same map, with what it learns from draws still to be learnt."""
        return Quotient(
            self.group,
            scaling=self.scaling,
            sign=self.sign,
            permutation=self.permutation,
            rule=self.rule,
            precision=self.precision,
            biases=self.biases,
            reference=self.reference,
            activations=self.activations if activations is None else activations,
        )

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

    def reduce(
        self,
        params: Mapping[str, Tensor],
        chains: int = 1,
        after: Mapping[str, Tensor] | None = None,
    ) -> Canonical:
        """Map draws to their representatives, with a report on each draw.

        Parameters
        ----------
        params : dict of str to Tensor
            ``(chain * draw, *shape)`` for each site.
        chains : int
            How many chains the draws are of: they matter to matching with the draw before.
        after : dict of str to Tensor, optional
            ``Canonical.last`` of the draws before these.
        """
        require_sites(self.group, {site: tuple(t.shape[1:]) for site, t in params.items()})
        if self.permutation == "activation-matching" and self.activations is None:
            raise UserError(
                "activation matching needs to see the network: give Quotient the argument "
                "activations=activations(group, network, inputs), or apply the argument source"
            )
        nan = self._not_finite(params)
        batch = nan.shape[0]
        element = self.group.identity(batch)
        if self.group.trivial or batch == 0:
            none = torch.zeros(batch)
            return Canonical(dict(params), element, nan, none, none, none + torch.inf, none)
        working = {
            site: params[site]
            .cpu()
            .double()
            .masked_fill(nan.reshape(-1, *[1] * (params[site].ndim - 1)), 0.0)
            for site in self.group.shapes
        }
        working, element = settle(self.group, working)
        # signs and scales act plainly in sheared coordinates, and so do all steps from here on
        working = sheared(self.group, working)
        plain = replace(self.group, shears=())
        zeroed = torch.zeros(batch)
        if self.scaling == "min-mass":
            working, step, zeroed = take_out(plain, working)
            element = step @ element
        scaled = self._scaled(plain, working)
        working = scaled.element.apply(working)
        element = scaled.element @ element
        if self.sign:
            working, step = positive(plain, working)
            element = step @ element
        distance = torch.full((batch,), torch.inf)
        if self.permutation not in (None, "weight-matching"):
            working, step = sort(plain, working, self.rule)
            element = step @ element
            if bool(zeroed.any()):
                step = idle_last(plain, working)
                working, element = step.apply(working), step @ element
            distance = margin(plain, working, self.rule)
        last = None
        if self._matcher is not None:
            found = self._matcher(working, ~nan, chains, after)
            element, distance, last = found.element @ element, found.margin, found.last
        element = _spare(replace(element, group=self.group), nan)
        return Canonical(
            element.apply(params),
            element,
            nan,
            scaled.residual,
            scaled.degenerate,
            distance,
            zeroed.masked_fill(nan, 0.0),
            last,
        )

    def apply(
        self,
        trace: xr.DataTree | str | Path,
        out: str | Path | None = None,
        *,
        source: Any = None,
        mapped: Map = map,
    ) -> xr.DataTree | Path:
        """Add the groups ``canonical_posterior`` and ``symmetry`` to a trace.

        The attributes of ``symmetry`` say what was done and what it did to the draws. Where draws
        are matched to a reference they look alike whatever they are, so draws from the prior (100
        in each chain, or as many as there are of the posterior) are put through the same
        procedure as the group ``canonical_prior``, if `source` is a model.

        Parameters
        ----------
        trace : xarray.DataTree or path
            A trace in memory, which is not changed; or a run directory or NetCDF file, into
            which the groups are streamed block by block of draws.
        out : path, optional
            Write a new file instead of adding to the file `trace`.
        source : LogDensity, optional
            The network: if given, its output is compared before and after on a few draws, and
            the largest relative change is recorded as the attribute ``function_error``. Its
            prior is that of the null control, its data are the inputs of activation matching.
        mapped : callable
            ``mapped(function, tasks)``, as `map`, for blocks of draws: that of a
            `pyro_bnn.infer.distributed.Scheduler` computes them on a cluster. The result is the
            same, bit for bit. Draws that are matched to the previous one stay in this process.

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
        from pyro_bnn.symmetry import divide

        return divide.apply(self, trace, out, source, mapped)

    def restore(self, trace: xr.DataTree) -> xr.Dataset:
        """Return the original draws from the canonical ones and the stored elements."""
        from pyro_bnn.symmetry import labelled

        return labelled.restore(trace)

    def _new_matcher(self) -> Matcher | None:
        if self.permutation is None or self.permutation == "sort":
            return None
        seen = self.activations if self.permutation == "activation-matching" else None
        return Matcher(self.group, self.permutation, self.reference, self.sign, seen)

    def _scaled(self, group: SymmetryGroup, params: Mapping[str, Tensor]) -> Scaled:
        if self.scaling == "min-mass":
            return min_mass(group, params, precision=self.precision, biases=self.biases)
        if self.scaling == "unit-norm":
            return unit_norm(group, params)
        batch = next(iter(params.values())).shape[0]
        return Scaled(group.identity(batch), torch.zeros(batch), torch.zeros(batch))

    def _not_finite(self, params: Mapping[str, Tensor]) -> Tensor:
        sites = [params[site] for site in self.group.shapes]
        bad = [~torch.isfinite(t[..., None]).flatten(1).all(-1) for t in sites]
        return torch.stack(bad).any(0).cpu() if bad else torch.zeros(0, dtype=torch.bool)


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UserError(f"{name} {value!r} is not one of {', '.join(map(repr, allowed))}")


def _require_reference(group: SymmetryGroup, reference: Mapping[str, Tensor]) -> None:
    for site, shape in group.shapes.items():
        if site not in reference:
            raise UserError(f"the reference lacks site {site!r}, which the network has")
        if tuple(reference[site].shape) != shape:
            raise UserError(
                f"site {site!r} has shape {tuple(reference[site].shape)} in the reference and "
                f"{shape} in the network: give one set of weights, without a draw axis"
            )


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
