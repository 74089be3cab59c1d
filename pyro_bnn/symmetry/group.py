"""The symmetry group of a network: its index spaces and what acts on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from pyro_bnn.symmetry import frames as linear
from pyro_bnn.symmetry import translation
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.frames import Frame
from pyro_bnn.symmetry.shear import Shear
from pyro_bnn.symmetry.translation import Translation

if TYPE_CHECKING:
    from pyro_bnn.symmetry.completeness import Completeness


@dataclass(frozen=True)
class Factor:
    """A factor of an axis: an index space, or a concatenation of products of spaces.

    Attributes
    ----------
    size : int
    space : str
        Name of the space; empty for a concatenation.
    parts : tuple of tuple of Factor
        The parts of a concatenation.
    woven : bool
        Whether the parts take turns, point by point, instead of following one another.
    """

    size: int
    space: str = ""
    parts: tuple[tuple[Factor, ...], ...] = ()
    woven: bool = False


@dataclass(frozen=True)
class Placement:
    """An affine map from spaces to positions of an axis (one choice of parts).

    Attributes
    ----------
    offset : int
    spaces : tuple of str
    sizes, strides : tuple of int
    """

    offset: int
    spaces: tuple[str, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


def placements(axis: Sequence[Factor]) -> list[Placement]:
    """Return every choice of parts along an axis, in order of position."""
    result = [Placement(0, (), (), ())]
    stride = 1
    for factor in reversed(axis):
        if factor.space:
            choices = [Placement(0, (factor.space,), (factor.size,), (1,))]
        else:
            choices, start = [], 0
            step = len(factor.parts) if factor.woven else 1
            for part in factor.parts:
                for inner in placements(part):
                    offset = inner.offset * step + start
                    strides = tuple(s * step for s in inner.strides)
                    choices.append(Placement(offset, inner.spaces, inner.sizes, strides))
                start += 1 if factor.woven else math.prod(f.size for f in part)
        result = [
            Placement(
                left.offset * stride + right.offset,
                left.spaces + right.spaces,
                left.sizes + right.sizes,
                tuple(s * stride for s in left.strides) + right.strides,
            )
            for left in choices
            for right in result
        ]
        stride *= factor.size
    return result


@dataclass(frozen=True)
class Space:
    """An index space that symmetries act on.

    Attributes
    ----------
    name : str
    size : int
    permutable : bool
        Whether the weights' likelihood is invariant under its permutations.
    over : str
        Name of a space over which this one is fibred (a head, for the units within it): it has
        one permutation for each point of that space. Empty for an ordinary space.
    over_size : int
        Number of points of the space below, 1 for an ordinary space.
    sites : list of (str, int)
        Sites and axes that the space runs through.
    """

    name: str
    size: int
    permutable: bool
    sites: list[tuple[str, int]]
    over: str = ""
    over_size: int = 1


@dataclass(frozen=True)
class Term:
    """One block of one site on which a family acts.

    Attributes
    ----------
    site : str
    block : tuple of int
        The placement chosen on each axis.
    axis, place : int
        The factor that carries the family's space; -1 where the family is one number.
    exponent : float
        Power of the family's parameter that multiplies the block.
    """

    site: str
    block: tuple[int, ...]
    axis: int
    place: int
    exponent: float


@dataclass(frozen=True)
class Family:
    """Scales or signs, one for each unit of a space (or one number for all).

    Attributes
    ----------
    name : str
    kind : str
        ``scale`` or ``sign``.
    space : str
        Name of the space, empty for one number.
    size : int
        Number of parameters.
    terms : tuple of Term
    """

    name: str
    kind: str
    space: str
    size: int
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class SymmetryGroup:
    """Transformations of the weights that leave the likelihood as it is.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Shape of every site.
    layout : dict of str to list of axes
        Every axis as a product of spaces.
    dims : dict of str to tuple of str
        A name for every axis; axes that share an index space share a name.
    spaces : dict of str to Space
        Hidden index spaces in order of computation.
    families : dict of str to Family
        Scales and signs.
    unruled : dict of str to int
        Operators without a rule, which pinned what they touched.
    rejected : dict of str to float
        Generators that failed the numerical certificate, with their relative error.
    unused : tuple of str
        Sites that do not enter the likelihood.
    statistics : tuple of str
        Sites that are running statistics, not weights: they are acted on, and have no mass.
    offsets : dict of str to float
        Constants that are added to a site before its scales act and taken off after (the eps
        of batch norm, for a running variance).
    certificate : float
        Largest relative error of the output under the accepted generators.
    preserves_prior : dict of str to bool
        For each generator, whether the prior density is invariant too (empty if unknown).
    translations : dict of str to Translation
        Blocks of weights to which something may be added, in sheared coordinates.
    shears : tuple of Shear
        What some biases take up of other weights, in order: the coordinates in which signs,
        scales, frames and permutations multiply and translations add.
    frames : dict of str to Frame
        General linear groups of spaces that are only contracted.
    crossed : tuple of (str, int)
        Sites and axes that the computation cuts in ways that cross one another: symmetries that
        respect all cuts may have been missed there.
    singular : tuple of str
        Scales whose units cannot be set to zero where they are idle: the function has no value
        there.
    measured : Completeness, optional
        What `measure` found.
    network : tuple
        A small network and its example input, until it has been measured.
    """

    shapes: dict[str, tuple[int, ...]]
    layout: dict[str, tuple[tuple[Factor, ...], ...]]
    dims: dict[str, tuple[str, ...]]
    spaces: dict[str, Space]
    families: dict[str, Family] = field(default_factory=dict)
    unruled: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, float] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    offsets: dict[str, float] = field(default_factory=dict)
    certificate: float = 0.0
    preserves_prior: dict[str, bool] = field(default_factory=dict)
    translations: dict[str, Translation] = field(default_factory=dict)
    shears: tuple[Shear, ...] = ()
    frames: dict[str, Frame] = field(default_factory=dict)
    crossed: tuple[tuple[str, int], ...] = ()
    singular: tuple[str, ...] = ()
    measured: Completeness | None = field(default=None, compare=False, repr=False)
    network: tuple[Any, ...] = field(default=(), compare=False, repr=False)

    @property
    def shifts(self) -> dict[str, int]:
        """Sites, and the axis of each, to which any vector may be added at all outputs alike.

        A softmax does not see it.
        """
        found = {}
        for moved in self.translations.values():
            for axis, dim in enumerate(self.dims[moved.site]):
                whole = len(self.layout[moved.site][axis]) == 1
                if moved.along >= 0 and whole and dim.startswith("y"):
                    block = translation.joint_block(self, moved.site, moved.block)
                    if block.spaces[moved.along] == self.layout[moved.site][axis][0].space:
                        found[moved.site] = axis
        return found

    @property
    def permutable(self) -> dict[str, Space]:
        """The spaces whose points permute."""
        return {name: space for name, space in self.spaces.items() if space.permutable}

    def kind(self, kind: str) -> dict[str, Family]:
        """Return the families of one kind, ``scale`` or ``sign``."""
        return {name: f for name, f in self.families.items() if f.kind == kind}

    @property
    def log_order(self) -> float:
        """Logarithm of the number of elements of the finite part."""
        permutations = sum(
            space.over_size * math.lgamma(space.size + 1) for space in self.permutable.values()
        )
        return permutations + math.log(2) * sum(f.size for f in self.kind("sign").values())

    @property
    def scale_dim(self) -> int:
        """Number of scales, the part of the continuous group that multiplies single units."""
        return sum(family.size for family in self.kind("scale").values())

    @property
    def frame_dim(self) -> int:
        """Dimension that the general linear groups add to the scales."""
        return sum(f.count * (f.size**2 - f.size) for f in self.frames.values())

    @property
    def shift_dim(self) -> int:
        """Number of parameters of the translations."""
        return sum(moved.size for moved in self.translations.values())

    @property
    def trivial(self) -> bool:
        """Whether no symmetry was found."""
        return not (self.permutable or self.families or self.translations)

    def identity(self, batch: int = 1) -> GroupElement:
        """Return the identity."""
        return GroupElement(self, {}, {}, {}, batch)

    def sample(
        self, generator: torch.Generator | None = None, batch: int = 1, spread: float = 0.5
    ) -> GroupElement:
        """Draw elements: uniform permutations and signs, log scales and translations normal.

        Parameters
        ----------
        generator : torch.Generator, optional
        batch : int
            Number of elements.
        spread : float
            Standard deviation of the log scales and of what is added.
        """
        permutations = {}
        for name, space in self.permutable.items():
            noise = torch.rand(
                batch, space.over_size, space.size, generator=generator, dtype=torch.float64
            )
            order = noise.argsort(-1)
            permutations[name] = order if space.over else order[:, 0]
        log_scales = {
            name: spread * torch.randn(batch, f.size, generator=generator, dtype=torch.float64)
            for name, f in self.kind("scale").items()
        }
        signs = {
            name: 1 - 2 * torch.randint(2, (batch, f.size), generator=generator)
            for name, f in self.kind("sign").items()
        }
        shifts = {
            name: spread * torch.randn(batch, t.size, generator=generator, dtype=torch.float64)
            for name, t in self.translations.items()
        }
        added = translation.added(self, shifts)
        return GroupElement(self, permutations, log_scales, signs, batch, added)

    def sample_frames(
        self, generator: torch.Generator | None = None, batch: int = 1, spread: float = 0.5
    ) -> GroupElement:
        """Draw elements of the general linear groups alone, near the identity.

        The quotient settles only the scales, signs and permutations among them.

        Parameters
        ----------
        generator : torch.Generator, optional
        batch : int
            Number of elements.
        spread : float
            Size of the logarithm of each matrix.
        """
        matrices = linear.sample(self, generator, batch, spread)
        return GroupElement(self, {}, {}, {}, batch, {}, matrices)

    def measure(self) -> Completeness | None:
        """Return the completeness score: on small networks it is measured when first asked for.

        Returns
        -------
        Completeness or None
            None for networks of more than 2,000 weights, for those that take no more rows than
            their example, and for groups read from a file before they were measured:
            `pyro_bnn.symmetry.completeness` measures those.
        """
        from pyro_bnn.symmetry.completeness import of_small

        if self.measured is None and self.network:
            object.__setattr__(self, "measured", of_small(self, *self.network))
            object.__setattr__(self, "network", ())
        return self.measured

    def to_json(self) -> str:
        """Return the group as JSON."""
        from pyro_bnn.symmetry.group_json import dumps

        return dumps(self)

    @classmethod
    def from_json(cls, text: str) -> SymmetryGroup:
        """Read a group written by `to_json`."""
        from pyro_bnn.symmetry.group_json import loads

        return loads(text)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the network, which another process has no use for."""
        return {**self.__dict__, "network": ()}

    def __str__(self) -> str:
        """Return the group as a table."""
        from pyro_bnn.symmetry.table import lines

        return "\n".join(lines(self))
