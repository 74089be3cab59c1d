"""Stacked tensors: an axis of a few parts that are about to be taken apart again.

A packed projection is viewed as ``(3, heads, width)``, moved about and then split into queries,
keys and values. As one tensor the three would have to share their spaces; as a stack each
keeps its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import Node

from pyro_bnn.symmetry.analysis import Analysis, Stacked, Value
from pyro_bnn.symmetry.rules import Call
from pyro_bnn.symmetry.rules.movement import joined, run, viewed
from pyro_bnn.symmetry.rules.registry import normalise

MOST_PARTS = 8
MOVES = ("transpose", "permute", "squeeze", "unsqueeze", "clone", "contiguous", "alias", "detach")


def stack_view(analysis: Analysis, call: Call) -> Stacked | None:
    """Read a view that cuts one axis into a few parts as a stack; None if it is not one."""
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


def with_stacks(
    analysis: Analysis, call: Call, read: Callable[[Call], Any], taken_apart: bool
) -> Any:
    """Read a call whose arguments may be stacks, or whose result may become one.

    Parameters
    ----------
    analysis : Analysis
    call : Call
    read : callable
        Reads a call without stacks.
    taken_apart : bool
        Whether all that happens to the result is that it is moved and taken apart.
    """
    if any(isinstance(a, Stacked) for a in _flat(call.args)):
        moved = move(analysis, call)
        if moved is not None:
            return moved
        args = tuple(_collapsed(analysis, a) for a in call.args)
        return read(Call(call.name, args, call.kwargs, call.shapes))
    if taken_apart and call.name in ("aten.view", "aten.reshape", "aten.unflatten"):
        stacked = stack_view(analysis, call)
        if stacked is not None:
            return stacked
    return read(call)


def taken_apart(node: Node) -> bool:
    """Whether all that happens to the result of a node is that it is moved and taken apart."""
    for user in node.users:
        name = str(getattr(user.target, "overloadpacket", user.target)).removeprefix("aten.")
        if name in ("select", "unbind"):
            continue
        if name not in MOVES or not taken_apart(user):
            return False
    return bool(node.users)


def _flat(arguments: Sequence[Any]) -> list[Any]:
    return [item for a in arguments for item in (a if isinstance(a, (list, tuple)) else (a,))]


def _collapsed(analysis: Analysis, argument: Any) -> Any:
    if isinstance(argument, Stacked):
        return collapse(analysis, argument)
    if isinstance(argument, (list, tuple)):
        return [_collapsed(analysis, item) for item in argument]
    return argument
