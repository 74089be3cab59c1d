"""Stacked tensors: an axis of a few parts that are about to be taken apart again.

A packed projection is viewed as ``(3, heads, width)``, moved about and then split into queries,
keys and values. As one tensor the three would have to share their spaces; as a stack each
keeps its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import Node

from pyro_bnn.symmetry import spaces
from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.rules import Call
from pyro_bnn.symmetry.rules.movement import joined, run, viewed
from pyro_bnn.symmetry.rules.registry import normalise
from pyro_bnn.symmetry.spaces import Axis
from pyro_bnn.symmetry.values import Stacked, Value

MOST_PARTS = 8
VIEWS = ("view", "reshape", "_unsafe_view", "flatten")
MOVES = ("transpose", "permute", "squeeze", "unsqueeze", "clone", "contiguous", "alias", "detach")


def stack_view(analysis: Analysis, call: Call, shuffles: bool) -> Stacked | None:
    """Read a view that cuts one axis into a few parts as a stack; None if it is not one.

    Where a stack is to be shuffled it is one only if no simple space needs to be cut.
    """
    value = call.args[0]
    if not isinstance(value, Value) or value.constant is not None:
        return None
    old, new = value.shape, call.shape
    axis = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), None)
    if axis is None or not 1 < new[axis] <= MOST_PARTS or old[axis] % new[axis]:
        return None
    count, rest = new[axis], old[axis] // new[axis]
    tail = len(old) - axis - 1
    inner = new[axis + 1 : len(new) - tail]
    if math.prod(inner) != rest or new[len(new) - tail :] != old[axis + 1 :] or not inner:
        return None
    if shuffles and not shuffled(value, axis, count):
        return None
    shape = (*new[:axis], *new[axis + 1 :])
    parts = []
    for k in range(count):
        part = run(analysis, value, axis, k * rest, rest)
        parts.append(viewed(analysis, part, shape))
    return Stacked(tuple(parts), axis, tuple(new))


def move(analysis: Analysis, call: Call) -> Any:
    """Apply an operator that moves a stack, or takes it apart; None if it does neither."""
    stacked = call.args[0]
    if not isinstance(stacked, Stacked):
        return None
    name = call.name.removeprefix("aten.")
    rank = len(stacked.shape)
    if name == "select" and normalise(call.args[1], rank) == stacked.axis:
        return stacked.parts[call.args[2]]
    if name == "unbind" and normalise(call.get(1, "dim", 0), rank) == stacked.axis:
        return stacked.parts
    if name in VIEWS:
        return weave(analysis, call, stacked)
    if name not in MOVES:
        return None
    order = _order(name, call, rank)
    if order is None:
        return None
    axis = order.index(stacked.axis)
    without = [k - (k > stacked.axis) for k in order if k not in (stacked.axis, -1)]
    shape = (*call.shape[:axis], *call.shape[axis + 1 :])
    parts = []
    for part in stacked.parts:
        moved = analysis.rearranged(
            part, [part.axes[k] for k in without], [part.shape[k] for k in without]
        )
        parts.append(viewed(analysis, moved, shape) if moved.shape != shape else moved)
    return Stacked(tuple(parts), axis, call.shape)


def weave(analysis: Analysis, call: Call, stacked: Stacked) -> Value | None:
    """Merge the axis of a stack into the one before it: the parts take turns along it."""
    k, count = stacked.axis - 1, len(stacked.parts)
    if k < 0:
        return None
    n = stacked.shape[k]
    if call.shape != (*stacked.shape[:k], n * count, *stacked.shape[k + 2 :]):
        return None
    values = stacked.parts
    if any(not value.axes[k] and n > 1 for value in values):
        values = tuple(analysis.materialise(value) for value in values)
    axes: list[Axis] = []
    for axis in range(len(values[0].shape)):
        parts = [value.axes[axis] for value in values]
        if axis == k:
            axes.append(spaces.slots(spaces.weaving([spaces.leaves(part) for part in parts])))
            continue
        if any(not part for part in parts) and any(parts):
            return None
        for part in parts[1:]:
            spaces.unify(spaces.leaves(parts[0]), spaces.leaves(part))
        axes.append(spaces.slots(spaces.leaves(parts[0])))
    result = analysis.new(axes, call.shape)
    analysis.embed(list(zip(values, range(count), strict=True)), result, k, count)
    return result


def shuffled(value: Value, axis: int, count: int) -> bool:
    """Whether an axis is a concatenation that can be cut in equal parts between its own."""
    whole = spaces.expand(spaces.leaves(value.axes[axis]))
    if len(whole) != 1 or whole[0].parts is None or whole[0].woven:
        return False
    ends = set(itertools.accumulate(spaces.size(part) for part in whole[0].parts))
    each = value.shape[axis] // count
    return all(each * (k + 1) in ends for k in range(count))


def collapse(analysis: Analysis, stacked: Stacked) -> Value:
    """Turn a stack into one tensor, whose parts share their spaces."""
    values = []
    for part in stacked.parts:
        axes, shape = list(part.axes), list(part.shape)
        axes.insert(stacked.axis, ())
        shape.insert(stacked.axis, 1)
        values.append(analysis.rearranged(part, axes, shape))
    return joined(analysis, values, stacked.axis, stacked.shape)


def _order(name: str, call: Call, rank: int) -> list[int] | None:
    """Return which old axis each new axis is, -1 for a new one of one point."""
    order = list(range(rank))
    if name == "permute":
        return [normalise(axis, rank) for axis in call.args[1]]
    if name == "transpose":
        a, b = (normalise(axis, rank) for axis in call.args[1:3])
        order[a], order[b] = order[b], order[a]
    elif name == "unsqueeze":
        order.insert(normalise(call.args[1], rank + 1), -1)
    elif name == "squeeze":
        axes = call.get(1, "dim")
        if axes is None:
            return None
        chosen: Sequence[int] = [axes] if isinstance(axes, int) else axes
        dropped = {normalise(axis, rank) for axis in chosen}
        sizes = call.args[0].shape
        order = [k for k in order if k not in dropped or sizes[k] != 1]
    return order


def with_stacks(analysis: Analysis, call: Call, read: Callable[[Call], Any], fate: str) -> Any:
    """Read a call whose arguments may be stacks, or whose result may become one.

    Parameters
    ----------
    analysis : Analysis
    call : Call
    read : callable
        Reads a call without stacks.
    fate : str
        What happens to the result once it has been moved about: ``apart`` if it is taken apart,
        ``shuffled`` if its axes are merged again; empty for anything else.
    """
    if any(isinstance(a, Stacked) for a in _flat(call.args)):
        moved = move(analysis, call)
        if moved is not None:
            return moved
        args = tuple(_collapsed(analysis, a) for a in call.args)
        return read(Call(call.name, args, call.kwargs, call.shapes))
    if fate and call.name in ("aten.view", "aten.reshape", "aten.unflatten"):
        stacked = stack_view(analysis, call, fate == "shuffled")
        if stacked is not None:
            return stacked
    return read(call)


def fate(node: Node) -> str:
    """Say what happens to the result of a node once it has been moved about.

    Returns
    -------
    str
        ``apart`` if it is taken apart, ``shuffled`` if axes are merged again, else empty.
    """
    ends = set()
    for user in node.users:
        name = str(getattr(user.target, "overloadpacket", user.target)).removeprefix("aten.")
        if name in ("select", "unbind"):
            ends.add("apart")
        elif name in VIEWS:
            ends.add("shuffled")
        else:
            ends.add(fate(user) if name in MOVES else "")
    return ends.pop() if len(ends) == 1 else ""


def _flat(arguments: Sequence[Any]) -> list[Any]:
    return [item for a in arguments for item in (a if isinstance(a, (list, tuple)) else (a,))]


def _collapsed(analysis: Analysis, argument: Any) -> Any:
    if isinstance(argument, Stacked):
        return collapse(analysis, argument)
    if isinstance(argument, (list, tuple)):
        return [_collapsed(analysis, item) for item in argument]
    return argument
