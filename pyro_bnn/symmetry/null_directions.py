"""What may be added to the weights without effect, read off gradients at generic points.

Where any vector may be added to a block of weights, its gradient vanishes; where only something
uniform along a space may, the gradient sums to zero along it; where a later bias takes up what
is added, the two gradients are the same vector, carried back by the weight in between. One
backward pass shows them all. Rectifiers and other functions with flat pieces are replaced by a
smooth one for it, so that a unit that happens to be off looks no different from one that is on.
What is found here is a conjecture: the certificate tries it on the network itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter
from torch.utils import _pytree as pytree

from pyro_bnn.symmetry import action
from pyro_bnn.symmetry.computation import LOUD, Computation
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.shear import Shear, long_axis, positions
from pyro_bnn.symmetry.translation import Translation, joint_block

TOLERANCE = 1e-9
FEW_WEIGHTS = 50_000
BATCH_NORM = "aten.batch_norm"
FLAT = {
    f"aten.{name}{suffix}"
    for suffix in ("", "_")
    for name in (
        "relu", "relu6", "leaky_relu", "rrelu", "hardtanh", "hardswish", "hardsigmoid", "threshold",
        "sign", "round", "trunc", "floor", "ceil", "softshrink", "hardshrink",
    )
}  # fmt: skip
POSITIVE = {"aten.abs", "aten.clamp", "aten.clamp_min", "aten.clamp_max", "aten.clip"}

Gradients = list[tuple[dict[str, Tensor], dict[str, Tensor]]]


def with_translations(group: SymmetryGroup, read: Computation) -> SymmetryGroup:
    """Add the translations that the gradients suggest, and the shears that they need."""
    sites = _movable(group, read)
    probes = [_Probe(group, *pair) for pair in _gradients(read, sites)]
    if not probes:
        return group
    found: dict[str, Translation] = {}
    taken: list[Shear] = []
    null: set[str] = set()
    for site in sites:
        for block in _blocks(group, site):
            tables = [probe.table(probe.gradients[site], site, block) for probe in probes]
            count = tables[0].numel()
            largest = [float(table.abs().max()) for table in tables]
            vanish = all(m <= TOLERANCE * p.scale for m, p in zip(largest, probes, strict=True))
            shears = [] if vanish else _absorbers(group, probes, site, block, null)
            if vanish or shears:
                _remember(found, site, block, -1, count)
                taken += shears
                null.add(site)
                continue
            for k, n in enumerate(tables[0].shape):
                sums = [float(table.sum(k).abs().max()) for table in tables]
                if all(s <= TOLERANCE * m for s, m in zip(sums, largest, strict=True)):
                    _remember(found, site, block, k, count // n)
    return replace(group, translations=found, shears=(*group.shears, *taken))


def _remember(
    found: dict[str, Translation], site: str, block: tuple[int, ...], k: int, size: int
) -> None:
    name = f"shift of {site}"
    numbers = (f"{name} ({n})" for n in itertools.count(2))
    unique = next(n for n in itertools.chain([name], numbers) if n not in found)
    found[unique] = Translation(unique, site, block, k, size)


def _movable(group: SymmetryGroup, read: Computation) -> list[str]:
    """Return the weights to which something could be added, in order of use."""
    live = read.live()
    position = {node: k for k, node in enumerate(read.graph.graph.nodes)}
    first = {
        site: min((position[u] for u in node.users if u in live), default=-1)
        for site, node in read.placeholders().items()
    }
    real = [s for s, w in read.weights.items() if w.kind == "real" and torch.Size(w.shape).numel()]
    chosen = [s for s in real if s not in (*group.unused, *group.statistics)]
    return sorted(chosen, key=lambda site: first[site])


def _gradients(read: Computation, sites: Sequence[str]) -> Gradients:
    """Return generic points and the gradients of one number made of the outputs."""
    generator = torch.Generator().manual_seed(4)
    means = [
        name
        for name, node in read.placeholders().items()
        if read.weights[name].statistic
        and all(_operator(user.target) == BATCH_NORM for user in node.users)
    ]
    few = sum(math.prod(weight.shape) for weight in read.weights.values()) <= FEW_WEIGHTS
    result: Gradients = []
    for size in (1.0, 1.0, 1.0, LOUD)[: 4 if few else 1]:
        point = read.generic_point(generator, size)
        leaves = {
            name: value.clone().requires_grad_()
            for name, value in point.items()
            if name in sites or name in means
        }
        values = {**point, **leaves}
        out = _Smooth(read.graph).run(*(values[name] for name in read.weights))
        parts = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor) and t.requires_grad]
        if not parts:
            return []
        total = sum(
            (p * torch.randn(p.shape, generator=generator, dtype=p.dtype)).sum() for p in parts
        )
        assert isinstance(total, Tensor)
        found = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        if not all(bool(torch.isfinite(g).all()) for g in found):
            return []
        result.append((point, dict(zip(leaves, found, strict=True))))
    return result


class _Smooth(Interpreter):
    """Evaluates a graph with every function of flat pieces replaced by a smooth one."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Evaluate one call."""
        name = _operator(target)
        if name in FLAT and isinstance(args[0], Tensor):
            return args[0] + 0.3 * torch.sin(2 * args[0] + 0.5)
        if name in POSITIVE and isinstance(args[0], Tensor):
            return torch.nn.functional.softplus(2 * args[0])
        if name == BATCH_NORM and not args[5]:
            return _evaluated(args[0], args[1], args[2], args[3], args[4], args[7])
        return super().call_function(target, args, kwargs)


def _operator(target: Any) -> str:
    return str(getattr(target, "overloadpacket", target))


def _evaluated(
    value: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> Tensor:
    """Evaluate batch norm by operators that have derivatives by its statistics."""
    shape = [1, -1, *[1] * (value.ndim - 2)]
    result = (value - mean.reshape(shape)) * (variance + eps).rsqrt().reshape(shape)
    result = result if scale is None else result * scale.reshape(shape)
    return result if shift is None else result + shift.reshape(shape)


def _blocks(group: SymmetryGroup, site: str) -> Iterator[tuple[int, ...]]:
    counts = [len(action.places(axis)) for axis in group.layout[site]]
    return itertools.product(*(range(n) for n in counts))


class _Probe:
    """One generic point, the gradients there, and what they look like further back.

    Attributes
    ----------
    group : SymmetryGroup
    point, gradients : dict of str to Tensor
    scale : float
        Largest entry of any gradient.
    """

    def __init__(
        self, group: SymmetryGroup, point: dict[str, Tensor], gradients: dict[str, Tensor]
    ) -> None:
        self.group = group
        self.point = point
        self.gradients = gradients
        self.scale = max(float(g.abs().max()) for g in gradients.values())
        self._matrices: dict[tuple[str, int, int], Tensor] = {}
        self._carried: dict[tuple[str, int, int, str], Tensor] = {}

    def table(self, value: Tensor, site: str, block: tuple[int, ...]) -> Tensor:
        """Return one block of a site on the grid of its spaces."""
        place = joint_block(self.group, site, block)
        if math.prod(place.sizes) == value.numel():
            return value.reshape(place.sizes)
        return value.flatten()[action.grid(place)]

    def pulled(self, shear: Shear) -> Tensor:
        """Return the gradient of a target, carried back to the source."""
        site = shear.weight or shear.target
        axis = shear.into if shear.weight else long_axis(self.group.shapes[site])
        back = self.gradients[shear.target].flatten()
        if shear.weight:
            key = (shear.weight, shear.out, shear.into)
            if key not in self._matrices:
                weight = self.point[shear.weight].movedim(key[1:], (0, 1))
                self._matrices[key] = weight.reshape(*weight.shape[:2], -1).sum(-1)
            if (*key, shear.target) not in self._carried:
                self._carried[(*key, shear.target)] = back @ self._matrices[key]
            back = self._carried[(*key, shear.target)]
        source = self.point[shear.source]
        result = torch.zeros(source.numel(), dtype=back.dtype)
        result.index_add_(0, positions(self.group, shear, site, axis), back)
        return self.table(result.reshape(source.shape), shear.source, shear.block).flatten()


def _absorbers(
    group: SymmetryGroup,
    probes: Sequence[_Probe],
    site: str,
    block: tuple[int, ...],
    null: set[str],
) -> list[Shear]:
    """Find the biases that take up whatever is added to a block of a site with one axis."""
    if long_axis(group.shapes[site]) < 0:
        return []
    goal = torch.cat([p.table(p.gradients[site], site, block).flatten() / p.scale for p in probes])
    shears = list(_candidates(group, site, block, null, probes[0].gradients))
    if not shears:
        return []
    columns = torch.stack(
        [torch.cat([p.pulled(shear) / p.scale for p in probes]) for shear in shears], 1
    )
    limit = TOLERANCE * float(goal.abs().max())
    for k in range(len(shears)):
        for sign in (1.0, -1.0):
            if float((goal - sign * columns[:, k]).abs().max()) <= limit:
                return [replace(shears[k], coefficient=sign)]
    if len(goal) < 1.5 * len(shears):
        return []
    solution = torch.linalg.lstsq(columns, goal[:, None], driver="gelsd").solution[:, 0]
    chosen = solution.round().clamp(-1, 1)
    if float((goal - columns @ chosen).abs().max()) > limit:
        return []
    return [
        replace(shear, coefficient=float(c)) for shear, c in zip(shears, chosen, strict=True) if c
    ]


def _candidates(
    group: SymmetryGroup,
    site: str,
    block: tuple[int, ...],
    null: set[str],
    known: Mapping[str, Tensor],
) -> Iterator[Shear]:
    """Run through the biases that may take up a source, directly or through a weight."""
    own = joint_block(group, site, block).spaces
    if len(set(own)) < len(own):
        return
    biases = [
        other
        for other in known
        if other not in (site, *null) and long_axis(group.shapes[other]) >= 0
    ]
    for bias in biases:
        (place, *more) = action.places(group.layout[bias][long_axis(group.shapes[bias])])
        if not more and place.spaces == own:
            yield Shear(bias, 1.0, source=site, block=block)
    ends = {bias: group.layout[bias][long_axis(group.shapes[bias])] for bias in biases}
    for weight, axes in group.layout.items():
        if weight in group.unused or len(axes) < 2:
            continue
        for into, axis in enumerate(axes):
            (place, *more) = action.places(axis)
            twice = len(set(place.spaces)) < len(place.spaces)
            if more or twice or not own or not set(own) <= set(place.spaces):
                continue
            for out, other in enumerate(axes):
                for bias in biases if out != into else []:
                    if ends[bias] == other:
                        yield Shear(bias, 1.0, weight, out, into, site, block)
