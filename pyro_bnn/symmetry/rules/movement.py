"""Operators that move numbers without computing: views, slices, concatenations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyro_bnn.symmetry import spaces
from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.rules.registry import Call, normalise, operand, rule
from pyro_bnn.symmetry.spaces import Axis, Slot
from pyro_bnn.symmetry.values import Value


@rule("view", "reshape", "_unsafe_view", "unflatten", "flatten", "view_as", "reshape_as")
def view(analysis: Analysis, call: Call) -> Value:
    """Merge and split axes: the row-major product of all spaces is cut anew."""
    value = operand(analysis, call.args[0])
    return viewed(analysis, value, call.shape)


def viewed(analysis: Analysis, value: Value, shape: Sequence[int]) -> Value:
    """View a tensor in another shape."""
    if tuple(shape) == value.shape:
        return analysis.rearranged(value, value.axes, shape)
    value = analysis.materialise(value)
    line = [slot for axis in value.axes for factor in axis for slot in factor.expand()]
    axes: list[Axis] = []
    for length in shape:
        axis = _take(line, length)
        if axis is None:
            analysis.cross(value)
            return analysis.opaque(shape)
        axes.append(axis)
    return analysis.rearranged(value, axes, shape)


def _take(line: list[Slot], length: int) -> Axis | None:
    """Take slots of `length` points off the front of a line, splitting the last if need be."""
    taken: list[Slot] = []
    need = length
    while need > 1:
        line[:1] = line[0].expand()
        head = line[0]
        if head.size > need:
            if not spaces.split_product(head.leaf, need):
                return None
            continue
        if need % head.size:
            common = math.gcd(need, head.size)
            if common == 1 or not spaces.split_product(head.leaf, common):
                return None
            continue
        taken.append(line.pop(0))
        need //= head.size
    return tuple(taken)


@rule("permute", "transpose", "t", "swapaxes", "movedim", "numpy_T", "mT", "swapdims", "transpose_")
def permute(analysis: Analysis, call: Call) -> Value | None:
    """Reorder axes."""
    value = operand(analysis, call.args[0])
    rank = len(value.shape)
    order = list(range(rank))
    if call.name == "aten.permute":
        order = [normalise(axis, rank) for axis in call.args[1]]
    elif call.name in ("aten.t", "aten.numpy_T"):
        order = order[::-1]
    elif call.name == "aten.mT":
        order[-2:] = order[:-3:-1]
    elif call.name == "aten.movedim":
        source, target = call.args[1], call.args[2]
        if not isinstance(source, int):
            return None
        order.insert(normalise(target, rank), order.pop(normalise(source, rank)))
    else:
        a, b = (normalise(axis, rank) for axis in call.args[1:3])
        order[a], order[b] = order[b], order[a]
    return analysis.rearranged(value, [value.axes[k] for k in order], call.shape)


@rule("squeeze", "unsqueeze", "squeeze_", "unsqueeze_", "atleast_1d", "atleast_2d")
def squeeze(analysis: Analysis, call: Call) -> Value:
    """Drop or add axes of one point: the others keep their order."""
    value = operand(analysis, call.args[0])
    axes = iter([axis for axis, n in zip(value.axes, value.shape, strict=True) if n != 1])
    return analysis.rearranged(
        value, [() if n == 1 else next(axes) for n in call.shape], call.shape
    )


@rule("expand", "broadcast_to", "expand_as")
def expand(analysis: Analysis, call: Call) -> Value:
    """Repeat along axes: the result is uniform there."""
    return _broadcast(analysis, operand(analysis, call.args[0]), call.shape)


def _broadcast(analysis: Analysis, value: Value, shape: Sequence[int]) -> Value:
    axes: list[Axis] = [()] * (len(shape) - len(value.shape))
    return analysis.rearranged(value, [*axes, *value.axes], shape)


@rule("broadcast_tensors")
def broadcast_tensors(analysis: Analysis, call: Call) -> tuple[Value, ...]:
    """Broadcast each of a list."""
    values = [operand(analysis, value) for value in call.args[0]]
    return tuple(_broadcast(analysis, v, s) for v, s in zip(values, call.shapes, strict=True))


@rule("cat", "concat", "concatenate")
def cat(analysis: Analysis, call: Call) -> Value:
    """Concatenate spaces along one axis; the other axes are one."""
    values = [operand(analysis, value) for value in call.args[0]]
    axis = normalise(call.get(1, "dim", 0), len(call.shape))
    return joined(analysis, [v for v in values if v.shape != (0,)], axis, call.shape)


@rule("stack")
def stack(analysis: Analysis, call: Call) -> Value:
    """Concatenate along a new axis."""
    axis = normalise(call.get(1, "dim", 0), len(call.shape))
    values = []
    for argument in call.args[0]:
        value = operand(analysis, argument)
        axes, shape = list(value.axes), list(value.shape)
        axes.insert(axis, ())
        shape.insert(axis, 1)
        values.append(analysis.rearranged(value, axes, shape))
    return joined(analysis, values, axis, call.shape)


def joined(analysis: Analysis, values: Sequence[Value], axis: int, shape: Sequence[int]) -> Value:
    """Concatenate tensors along one axis."""
    values = [_grounded(analysis, value, axis) for value in values]
    axes: list[Axis] = []
    for k in range(len(shape)):
        parts = [value.axes[k] for value in values]
        if k == axis:
            joint = spaces.concatenation([spaces.leaves(part) for part in parts])
            axes.append(spaces.slots(joint))
            continue
        if any(not part for part in parts) and any(parts):
            values = [analysis.materialise(value) for value in values]
            parts = [value.axes[k] for value in values]
        for part in parts[1:]:
            spaces.unify(spaces.leaves(parts[0]), spaces.leaves(part))
        axes.append(spaces.slots(spaces.leaves(parts[0])))
    result = analysis.new(axes, shape)
    starts = [sum(value.shape[axis] for value in values[:k]) for k in range(len(values))]
    analysis.embed(list(zip(values, starts, strict=True)), result, axis)
    return result


def _grounded(analysis: Analysis, value: Value, axis: int) -> Value:
    uniform = not value.axes[axis] and value.shape[axis] > 1
    return analysis.materialise(value) if uniform else value


@rule("slice", "narrow")
def slice_(analysis: Analysis, call: Call) -> Value | None:
    """Take a run of points: the space is a concatenation."""
    value = operand(analysis, call.args[0])
    axis = normalise(call.get(1, "dim", 0), len(value.shape))
    n = value.shape[axis]
    if call.name == "aten.narrow":
        start, step = call.args[2], 1
    else:
        start, step = call.get(2, "start") or 0, call.get(4, "step", 1)
    if isinstance(start, Value):
        return None
    if step != 1:
        return thinned(analysis, value, axis, call.shape)
    start = max(start + n if start < 0 else start, 0)
    return run(analysis, value, axis, start, call.shape[axis])


def thinned(analysis: Analysis, value: Value, axis: int, shape: Sequence[int]) -> Value:
    """Take every few points of an axis, which is pinned."""
    analysis.pin(value, axis)
    names = range(len(shape))
    left = [k for k in names if k != axis]
    sizes = [shape[k] for k in left]
    bare = analysis.apply(value, names, left, sizes, 1, "odd")
    grid = analysis.opaque([shape[axis]])
    return analysis.product([(bare, left), (grid, [axis])], names, shape)


def run(analysis: Analysis, value: Value, axis: int, start: int, length: int) -> Value:
    """Take `length` points of an axis from `start` on."""
    shape = list(value.shape)
    shape[axis] = length
    if length == value.shape[axis] or not value.axes[axis]:
        return analysis.rearranged(value, value.axes, shape)
    middle: tuple[spaces.Leaf, ...] | None = spaces.leaves(value.axes[axis])
    if start and middle is not None:
        halves = spaces.split_sum(middle, start)
        middle = None if halves is None else halves[1]
    if middle is not None and start + length < value.shape[axis]:
        halves = spaces.split_sum(middle, length)
        middle = None if halves is None else halves[0]
    if middle is None:
        analysis.cross(value)
        return analysis.opaque(shape)
    axes = [spaces.slots(spaces.leaves(a)) for a in value.axes]
    axes[axis] = spaces.slots(middle)
    result = analysis.new(axes, shape)
    analysis.embed([(result, start)], value, axis)
    return result


@rule("select")
def select(analysis: Analysis, call: Call) -> Value:
    """Take one point of an axis."""
    value = operand(analysis, call.args[0])
    axis = normalise(call.args[1], len(value.shape))
    index = call.args[2]
    return picked(analysis, value, axis, index + value.shape[axis] if index < 0 else index)


def picked(analysis: Analysis, value: Value, axis: int, index: int) -> Value:
    """Take one point of an axis and drop the axis."""
    part = run(analysis, value, axis, index, 1)
    axes, shape = list(part.axes), list(part.shape)
    del axes[axis], shape[axis]
    return analysis.rearranged(part, axes, shape)


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
def split(analysis: Analysis, call: Call) -> tuple[Value, ...]:
    """Cut an axis into runs."""
    value = operand(analysis, call.args[0])
    axis = normalise(call.get(2, "dim", 0), len(value.shape))
    parts, start = [], 0
    for shape in call.shapes:
        parts.append(run(analysis, value, axis, start, shape[axis]))
        start += shape[axis]
    return tuple(parts)


@rule("unbind")
def unbind(analysis: Analysis, call: Call) -> tuple[Value, ...]:
    """Take every point of an axis."""
    value = operand(analysis, call.args[0])
    axis = normalise(call.get(1, "dim", 0), len(value.shape))
    return tuple(picked(analysis, value, axis, k) for k in range(value.shape[axis]))
