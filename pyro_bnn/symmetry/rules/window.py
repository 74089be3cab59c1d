"""Convolution, pooling and padding: channels are spaces, the grid is pinned."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from fractions import Fraction

import torch

from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.relations import Parity
from pyro_bnn.symmetry.rules.movement import joined, viewed
from pyro_bnn.symmetry.rules.registry import Call, Result, labels, operand, rule
from pyro_bnn.symmetry.spaces import Axis
from pyro_bnn.symmetry.values import Value

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
TRANSPOSED = {"conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3}
MAXIMA = {
    f"{prefix}max_pool{n}d{suffix}": n
    for prefix in ("", "adaptive_")
    for suffix in ("", "_with_indices")
    for n in (1, 2, 3)
}
AVERAGES = {f"{prefix}avg_pool{n}d": n for prefix in ("", "adaptive_") for n in (1, 2, 3)}
RESAMPLING = (
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d",
    "upsample_linear1d", "upsample_bicubic2d", "upsample_trilinear3d", "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa",
)  # fmt: skip


@rule(*CONVOLUTIONS, *TRANSPOSED)
def convolution(analysis: Analysis, call: Call) -> Result:
    """Contract input channels, create output channels; kernel and grid are pinned."""
    name = call.name.removeprefix("aten.")
    transposed = name in TRANSPOSED
    value, weight = (operand(analysis, argument) for argument in call.args[:2])
    bias = call.get(2, "bias")
    groups = call.get(6, "groups", 1)
    dimensions = {**CONVOLUTIONS, **TRANSPOSED}[name]
    lead = len(value.shape) - dimensions - 1
    grid = value.shape[lead + 1 :]
    if groups > 1:
        inside = value.shape[lead] // groups
        value = viewed(analysis, value, (*value.shape[:lead], groups, inside, *grid))
        first, second, *kernel = weight.shape
        weight = viewed(analysis, weight, (groups, first // groups, second, *kernel))
    group: list[Hashable] = ["group"] if groups > 1 else []
    batch: list[Hashable] = [("batch", k) for k in range(lead)]
    spatial: list[Hashable] = [("grid", k) for k in range(dimensions)]
    kernel_labels: list[Hashable] = [("kernel", k) for k in range(dimensions)]
    channels: list[Hashable] = ["in", "out"] if transposed else ["out", "in"]
    for k in range(dimensions):
        analysis.pin(value, -1 - k)
        analysis.pin(weight, -1 - k)
    out_grid = call.shape[lead + 1 :]
    split = (*call.shape[:lead], groups, call.shape[lead] // groups, *out_grid)
    result = analysis.product(
        [
            (value, [*batch, *group, "in", *spatial]),
            (weight, [*group, *channels, *kernel_labels]),
            (analysis.opaque(out_grid), [("new", k) for k in range(dimensions)]),
        ],
        [*batch, *group, "out", *[("new", k) for k in range(dimensions)]],
        split if groups > 1 else call.shape,
    )
    if groups > 1:
        result = viewed(analysis, result, call.shape)
    return result if bias is None else along(analysis, result, bias, lead, "sum")


def along(analysis: Analysis, value: Value, vector: Value, axis: int, how: str) -> Value:
    """Add or multiply by a vector along one axis."""
    n = len(value.shape)
    axes: list[Axis] = [()] * n
    axes[axis] = vector.axes[0]
    shape = [1] * n
    shape[axis] = vector.shape[0]
    spread = analysis.rearranged(vector, axes, shape)
    combine = analysis.add if how == "sum" else analysis.multiply
    return combine([value, spread], value.shape)


def regridded(
    analysis: Analysis,
    value: Value,
    axes: Sequence[int],
    shape: Sequence[int],
    degree: Fraction | int | None,
    parity: Parity,
) -> Value:
    """Compute windows over some axes, whose results lie on a new, pinned grid."""
    chosen = sorted(axis % len(value.shape) for axis in axes)
    names: list[Hashable] = list(labels(value))
    for axis in chosen:
        analysis.pin(value, axis)
    left = [name for name in names if name not in chosen]
    sizes = [value.shape[k] for k in range(len(names)) if k not in chosen]
    bare = analysis.apply(value, names, left, sizes, degree, parity)
    grid = analysis.opaque([shape[axis] for axis in chosen])
    return analysis.product([(bare, left), (grid, chosen)], names, shape)


@rule(*MAXIMA)
def max_pool(analysis: Analysis, call: Call) -> Result:
    """Let positive scales through the largest of a window."""
    value = operand(analysis, call.args[0])
    dimensions = MAXIMA[call.name.removeprefix("aten.")]
    result = regridded(analysis, value, range(-dimensions, 0), call.shape, 1, "none")
    if len(call.shapes) == 1:
        return result
    return result, analysis.opaque(call.shapes[1])


@rule(*AVERAGES)
def average_pool(analysis: Analysis, call: Call) -> Result:
    """Average windows: linear."""
    value = operand(analysis, call.args[0])
    dimensions = AVERAGES[call.name.removeprefix("aten.")]
    return regridded(analysis, value, range(-dimensions, 0), call.shape, 1, "odd")


@rule(*RESAMPLING)
def resample(analysis: Analysis, call: Call) -> Result:
    """Interpolate on another grid: linear."""
    value = operand(analysis, call.args[0])
    return regridded(analysis, value, range(2, len(value.shape)), call.shape, 1, "odd")


@rule("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad2d")
def pad(analysis: Analysis, call: Call) -> Result:
    """Put zeros, or copies, around an axis."""
    value = operand(analysis, call.args[0])
    widths = list(call.args[1])
    constant = call.name == "aten.constant_pad_nd" or (
        call.name == "aten.pad" and call.get(2, "mode", "constant") == "constant"
    )
    fill = call.get(3 if call.name == "aten.pad" else 2, "value", 0) if constant else 0
    if fill:
        return None
    rank = len(value.shape)
    for k in range(len(widths) // 2):
        before, after = widths[2 * k], widths[2 * k + 1]
        axis = rank - 1 - k
        if not before and not after:
            continue
        shape = list(value.shape)
        shape[axis] += before + after
        if not constant or before < 0 or after < 0 or value.axes[axis] == ():
            value = regridded(analysis, value, [axis], shape, 1, "odd")
            continue
        parts = [value]
        for position, width in ((0, before), (len(parts), after)):
            if width:
                empty = list(value.shape)
                empty[axis] = width
                parts.insert(
                    position if position == 0 else len(parts), analysis.constant(torch.zeros(empty))
                )
        value = joined(analysis, parts, axis, shape)
    return value


@rule("roll", "flip")
def reorder(analysis: Analysis, call: Call) -> Result:
    """Reorder the points of some axes, which are pinned."""
    value = operand(analysis, call.args[0])
    axes = call.get(2, "dims") if call.name == "aten.roll" else call.args[1]
    if not axes:
        return None
    chosen = [axes] if isinstance(axes, int) else list(axes)
    return regridded(analysis, value, chosen, call.shape, 1, "odd")
