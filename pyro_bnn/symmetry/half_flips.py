"""Sigmoid units flip where a bias takes up what the flip leaves over.

A sigmoid is a half plus an odd function, ``sigmoid(-z) = 1 - sigmoid(z)``. If all that reads it
are linear maps with biases of their own, the half can be counted with those biases, and its
units flip like those of a tanh. Where it gates, or is read by a convolution with padding, or by
a map without a bias, it does not.
"""

from __future__ import annotations

from torch.fx import Node

from pyro_bnn.symmetry.computation import Computation
from pyro_bnn.symmetry.rules.pointwise import IDENTITY
from pyro_bnn.symmetry.shear import Shear, long_axis

HALF_ODD = ("sigmoid", "sigmoid_", "hardsigmoid")
PASSES = {
    *IDENTITY, "dropout", "view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute",
    "transpose", "squeeze", "unsqueeze", "expand", "mean", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d",
}  # fmt: skip


def half_flips(read: Computation) -> tuple[set[Node], tuple[Shear, ...]]:
    """Find the sigmoids that count as odd, and the biases that take up their halves.

    Returns
    -------
    nodes : set of Node
    shears : tuple of Shear
    """
    live = read.live()
    sites = {node: name for name, node in read.placeholders().items()}
    readers: dict[Node, dict[Node, Shear] | None] = {
        node: _readers(read, node, live, sites)
        for node in read.graph.graph.nodes
        if node in live and node.op == "call_function" and _name(node) in HALF_ODD
    }
    good = {node: found for node, found in readers.items() if found}
    while True:
        reached = {end: shear for found in good.values() for end, shear in found.items()}
        weights: dict[str, set[tuple[str, int]]] = {}
        for shear in reached.values():
            weights.setdefault(shear.target, set()).add((shear.weight, shear.out))
        placeholders = read.placeholders()
        bad = {
            target
            for target, carriers in weights.items()
            if len(carriers) > 1
            or any(user in live and user not in reached for user in placeholders[target].users)
        }
        kept = {
            node: found
            for node, found in good.items()
            if not any(shear.target in bad for shear in found.values())
        }
        if len(kept) == len(good):
            return set(good), tuple(dict.fromkeys(reached.values()))
        good = kept


def _readers(
    read: Computation, node: Node, live: set[Node], sites: dict[Node, str]
) -> dict[Node, Shear] | None:
    """Return the nodes that add a bias to a linear map of a node; None if others read it."""
    found: dict[Node, Shear] = {}
    for user in node.users:
        if user not in live:
            continue
        if _name(user) in PASSES and user.args[0] is node:
            deeper = _readers(read, user, live, sites)
            if deeper is None:
                return None
            found |= deeper
            continue
        shear = _affine(read, node, user, sites)
        if shear is not None:
            found[user] = shear
            continue
        if _name(user) not in ("matmul", "mm") or user.args[0] is not node:
            return None
        carried = _weight(user.args[1], sites)
        sums = [after for after in user.users if after in live]
        if carried is None or len(sums) != 1 or _name(sums[0]) != "add":
            return None
        others = [a for a in sums[0].args if a is not user]
        bias = sites.get(others[0]) if len(others) == 1 and isinstance(others[0], Node) else None
        weight, transposed = carried
        shear = _shear(read, weight, 0 if transposed else 1, bias)
        if shear is None:
            return None
        found[sums[0]] = shear
    return found or None


def _affine(read: Computation, node: Node, user: Node, sites: dict[Node, str]) -> Shear | None:
    """Return what the bias of a linear layer takes up, None if it is not one."""
    name, arguments = _name(user), user.args
    if name == "linear" and len(arguments) > 2 and arguments[0] is node:
        carried = _weight(arguments[1], sites)
        if carried is None or not isinstance(arguments[2], Node):
            return None
        return _shear(read, carried[0], 1 if carried[1] else 0, sites.get(arguments[2]))
    if name == "addmm" and arguments[1] is node and isinstance(arguments[0], Node):
        carried = _weight(arguments[2], sites)
        if carried is None:
            return None
        return _shear(read, carried[0], 0 if carried[1] else 1, sites.get(arguments[0]))
    if name in ("conv1d", "conv2d", "conv3d") and len(arguments) > 2 and arguments[0] is node:
        padding = arguments[4] if len(arguments) > 4 else (0,)
        groups = arguments[6] if len(arguments) > 6 else 1
        plain = isinstance(padding, (list, tuple)) and not any(padding) and groups == 1
        if plain and isinstance(arguments[1], Node) and isinstance(arguments[2], Node):
            return _shear(read, sites.get(arguments[1]), 0, sites.get(arguments[2]))
    return None


def _weight(argument: object, sites: dict[Node, str]) -> tuple[str, bool] | None:
    """Return the site behind a matrix, and whether it was transposed on the way."""
    transposed = False
    while isinstance(argument, Node) and argument not in sites:
        if _name(argument) in ("t", "transpose", "numpy_T", "mT", "permute"):
            transposed = not transposed
        elif _name(argument) not in IDENTITY:
            return None
        argument = argument.args[0]
    return (sites[argument], transposed) if isinstance(argument, Node) else None


def _shear(read: Computation, weight: str | None, out: int, bias: str | None) -> Shear | None:
    if weight is None or bias is None:
        return None
    shape = read.weights[bias].shape
    axis = long_axis(shape)
    if axis < 0 or shape[axis] != read.weights[weight].shape[out]:
        return None
    return Shear(bias, 0.5, weight, out)


def _name(node: Node) -> str:
    target = getattr(node.target, "overloadpacket", node.target)
    return str(target).removeprefix("aten.")
