"""Orbit Gibbs on flat positions: a likelihood-free move that may follow any kernel's step.

The likelihood is constant along an orbit, so the conditional density there is that of the prior
alone. The priors are read off the model: normal ones give generalised inverse Gaussian scales,
Laplace ones exponentials of the scale itself, and Student-t ones are normal given a gamma
precision for each weight, which is drawn first. Scales of a layer that are sites themselves are
held fixed meanwhile: the move draws given them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry import translation
from pyro_bnn.symmetry.computation import Weight
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.orbit_gibbs import (
    redraw_scales,
    sample_finite,
    scaled_counts,
    self_scaling,
)
from pyro_bnn.symmetry.orbit_prior import PriorTerms

__all__ = ["OrbitMove"]

Parameters = Mapping[str, Mapping[str, Tensor]]


class OrbitMove:
    """A Markov move of flat positions along the orbits of a symmetry group.

    It leaves the posterior of `density` invariant, at its temperatures, and evaluates no
    likelihood: scales, and translations such as the common shift of the outputs of a softmax, are
    drawn from their conditional distributions, permutations and signs uniformly. What it cannot
    move is named in `held`, and stays.

    Parameters
    ----------
    density : LogDensity
        The posterior; its model's priors are read once.
    group : SymmetryGroup
        Discovered on the same model.
    sweeps : int
        Passes over the families of scales in one call.
    permute : bool
        Whether to draw permutations and signs too.

    Attributes
    ----------
    held : dict of str to str
        What stays, and why: families of scales or signs, translations, spaces whose units the
        prior tells apart, general linear maps.

    Raises
    ------
    UserError
        If the group is not that of the model, or nothing of it can be moved.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro_bnn import LogDensity
    >>> from pyro_bnn.symmetry import discover
    >>> def model(x, y):
    ...     v = pyro.sample("v", dist.Normal(torch.zeros(2, 8), 1.0).to_event(2))
    ...     w = pyro.sample("w", dist.Normal(torch.zeros(8), 1.0).to_event(1))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("y", dist.Normal(torch.relu(x @ v) @ w, 1.0), obs=y)
    >>> density = LogDensity(model, torch.randn(5, 2), torch.randn(5))
    >>> move = OrbitMove(density, discover(density))
    >>> position = torch.randn(3, density.dim)
    >>> moved = move(position, torch.Generator().manual_seed(0))
    >>> torch.allclose(density.log_likelihood(moved), density.log_likelihood(position), atol=1e-3)
    True
    """

    def __init__(
        self,
        density: LogDensity,
        group: SymmetryGroup,
        *,
        sweeps: int = 1,
        permute: bool = True,
    ) -> None:
        _require_model(group, density)
        if sweeps < 1:
            raise UserError(f"OrbitMove: sweeps is {sweeps}, give at least 1")
        self.density = density
        self.group = group
        self.sweeps = sweeps
        self.permute = permute
        self._temperature = density.posterior_temperature
        self._terms = PriorTerms(density)
        self.held: dict[str, str] = {}
        self._scaled = self._movable_scales()
        self._translations = self._movable_translations()
        if permute:
            for name in (*group.permutable, *group.kind("sign")):
                if not group.preserves_prior.get(name, False):
                    self.held[name] = "the prior is not invariant"
        finite = bool(self._finite())
        for name in group.frames:
            self.held[name] = "of general linear maps only scales, signs and permutations move"
        if not (self._scaled.families or self._translations or finite):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.held.items())
            raise UserError(f"OrbitMove has nothing to move ({reasons or 'no symmetry was found'})")
        self._sites = [s for s in group.shapes if any(_touches(group, s, n) for n in self._names())]

    def __call__(self, position: Tensor, generator: torch.Generator) -> Tensor:
        """Move chains along their orbits.

        Parameters
        ----------
        position : Tensor
            Unconstrained, ``(chain, dim)``.
        generator : torch.Generator

        Returns
        -------
        Tensor
            The new positions, a tensor of its own.
        """
        generator = _on_host(generator)
        values = {n: v.double() for n, v in self.density.constrain(position).items()}
        parameters = self._terms.at(values)
        if self._scaled.families:
            amplitudes = {
                site: self._amplitude(site, values[site], parameters, generator)
                for site in self._amplitude_sites
            }
            scales = redraw_scales(
                self._halved,
                amplitudes,
                self._counts,
                list(self._scaled.families),
                self.sweeps,
                generator,
            )
            element = GroupElement(self.group, {}, scales, {}, len(position))
            values = element.apply(values)
        for name in self._translations:
            moved_site = self.group.translations[name].site
            values[moved_site] = values[moved_site] + self._added(
                name, values[moved_site], parameters[moved_site], generator
            )
        if self.permute:
            values = sample_finite(self.group, len(position), generator).apply(values)
        moved, sites = position.clone(), self.density.sites
        for name in self._sites:
            site = sites[name]
            part = site.transform.inv(values[name].to(position.dtype))
            moved[:, site.start : site.stop] = part.reshape(len(position), -1)
        return moved

    # What may move

    def _movable_scales(self) -> SymmetryGroup:
        """Keep the families of scales whose conditional density is known."""
        group, density = self.group, self.density
        families = group.kind("scale")
        coupled = self_scaling(group)
        for name, family in families.items():
            sites = dict.fromkeys(term.site for term in family.terms)
            reasons = [self._why_not(site) for site in sites]
            if name in coupled:
                reasons.append("its units scale one another")
            for reason in filter(None, reasons):
                self.held.setdefault(name, reason)
        active = {name: f for name, f in families.items() if name not in self.held}
        halved = {}
        for name, family in active.items():
            terms = tuple(
                replace(t, exponent=t.exponent / 2) if self._form(t.site) == "laplace" else t
                for t in family.terms
            )
            halved[name] = replace(family, terms=terms)
        scaled = replace(group, families=active)
        # What the squares of amplitudes grow by: those of a Laplace prior are |w|.
        self._halved = replace(group, families=halved)
        self._amplitude_sites = list(
            dict.fromkeys(t.site for family in active.values() for t in family.terms)
        )
        # A positive site moves as its logarithm does, whose Jacobian belongs to the prior.
        entries = {
            site: torch.full(
                (1, *shape),
                1.0 if _real(density, site) else 1.0 / self._temperature,
                dtype=torch.float64,
            )
            for site, shape in group.shapes.items()
        }
        self._counts = scaled_counts(scaled, entries)
        return scaled

    def _movable_translations(self) -> list[str]:
        """Keep what is added to a site with a normal prior and taken up by no other."""
        kept = []
        carried = {(shear.source, shear.block) for shear in self.group.shears}
        for name, moved in self.group.translations.items():
            prior = self._terms.sites[moved.site]
            reason = self._needed_by_others(moved.site)
            if prior.form != "normal" or not _real(self.density, moved.site):
                reason = f"site '{moved.site}' has a {prior.name} prior"
            elif (moved.site, moved.block) in carried:
                reason = "another site takes it up"
            if reason:
                self.held[name] = reason
            else:
                kept.append(name)
        return kept

    def _why_not(self, site: str) -> str:
        """Say why the scales of a site cannot be drawn; empty if they can."""
        prior = self._terms.sites[site]
        if not prior.form:
            return f"site '{site}' has a {prior.name} prior"
        if not self._terms.centred(site):
            return f"the {prior.name} prior of site '{site}' is not centred at zero"
        return self._needed_by_others(site)

    def _needed_by_others(self, site: str) -> str:
        for other, prior in self._terms.sites.items():
            if site in prior.parents:
                return f"the prior of site '{other}' depends on site '{site}'"
        return ""

    def _form(self, site: str) -> str:
        return self._terms.sites[site].form

    def _names(self) -> list[str]:
        """Name the families, translations and spaces that move."""
        return [*self._scaled.families, *self._translations, *self._finite()]

    def _finite(self) -> list[str]:
        """Name the permutations and signs that leave the prior alone, where those move."""
        names = (*self.group.permutable, *self.group.kind("sign"))
        kept = self.group.preserves_prior
        return [name for name in names if self.permute and kept.get(name, False)]

    # How it moves

    def _amplitude(
        self, site: str, value: Tensor, parameters: Parameters, generator: torch.Generator
    ) -> Tensor:
        """Return numbers of which half the square is minus the tempered log prior."""
        prior = parameters[site]
        value, scale = value.double(), prior["scale"].double()
        if self._form(site) == "normal":
            return value / (scale * math.sqrt(self._temperature))
        if self._form(site) == "laplace":
            return (2 * value.abs() / (scale * self._temperature)).sqrt()
        df = prior["df"].double()
        shape = ((df + 1) / (2 * self._temperature)).expand_as(value).cpu().contiguous()
        drawn = torch._standard_gamma(shape, generator=generator).to(value.device)
        return value * (2 * drawn / (df * scale.square() + value.square())).sqrt()

    def _added(
        self, name: str, value: Tensor, prior: Mapping[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """Draw what a translation adds, from the prior, which is normal along its lines."""
        group, moved = self.group, self.group.translations[name]
        precision = prior["scale"].double().square().reciprocal().expand_as(value)
        # `part` takes means along the line, of so many entries.
        block = translation.joint_block(group, moved.site, moved.block)
        entries = block.sizes[moved.along] if moved.along >= 0 else 1
        total = translation.part(group, name, precision)
        pull = translation.part(group, name, precision * (prior["loc"].double() - value))
        noise = torch.randn(total.shape, dtype=torch.float64, generator=generator)
        spread = (self._temperature / (entries * total)).sqrt()
        return translation.spread(group, name, pull / total + noise.to(value.device) * spread)


def _require_model(group: SymmetryGroup, density: LogDensity) -> None:
    if density.statistics:
        raise UserError(
            f"OrbitMove: '{next(iter(density.statistics))}' follows from the weights and the data, "
            "and a scale before the norm changes the posterior by its eps: leave orbit.every at 0, "
            "or call .eval() on the network"
        )
    for site, shape in group.shapes.items():
        if site not in density.sites or tuple(density.sites[site].shape) != shape:
            raise UserError(
                f"OrbitMove: the group has a site {site!r} of shape {shape}, which the model does "
                "not have: discover the group on the same density"
            )
    if not group.preserves_prior and (group.permutable or group.families):
        raise UserError(
            "OrbitMove: the group was discovered on a bare module and does not know the prior: "
            "use discover(density)"
        )


def _real(density: LogDensity, site: str) -> bool:
    return Weight((), density.sites[site].support).kind == "real"


def _touches(group: SymmetryGroup, site: str, name: str) -> bool:
    """Whether a family, the permutations of a space or a translation changes a site."""
    if name in group.families:
        return any(term.site == site for term in group.families[name].terms)
    if name in group.spaces:
        space = group.spaces[name]
        return any(site == where for where, _ in space.sites)
    return group.translations[name].site == site


def _on_host(generator: torch.Generator) -> torch.Generator:
    """Return a generator on the host: group elements are drawn there."""
    if generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))
