"""Contractions: linear maps and matrix products."""

from __future__ import annotations

from collections.abc import Hashable

from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.rules.registry import Call, Result, normalise, operand, rule
from pyro_bnn.symmetry.values import Value


@rule("linear")
def linear(analysis: Analysis, call: Call) -> Value:
    """``x @ weight.T + bias``: contracts the input space, creates the output space."""
    value, weight = (operand(analysis, argument) for argument in call.args[:2])
    return affine(analysis, value, weight, call.get(2, "bias"), call.shape)


def affine(
    analysis: Analysis, value: Value, weight: Value, bias: Value | None, shape: tuple[int, ...]
) -> Value:
    """Contract the last axis with the last axis of a weight and add a bias."""
    batch = [("batch", k) for k in range(len(value.shape) - 1)]
    out: list[Hashable] = [*batch, *(["out"] if len(weight.shape) == 2 else [])]
    weight_labels = ["out", "in"] if len(weight.shape) == 2 else ["in"]
    result = analysis.product([(value, [*batch, "in"]), (weight, weight_labels)], out, shape)
    return result if bias is None else analysis.add([result, bias], shape)


@rule("matmul", "mm", "bmm", "mv", "dot")
def matmul(analysis: Analysis, call: Call) -> Value:
    """Matrix product with broadcast batch axes, as `torch.matmul` defines it."""
    left, right = (operand(analysis, argument) for argument in call.args[:2])
    return product(analysis, left, right, call.shape)


def product(analysis: Analysis, left: Value, right: Value, shape: tuple[int, ...]) -> Value:
    """Multiply two matrices, vectors or batches of matrices."""
    a, b = len(left.shape), len(right.shape)
    rank = max(a, b) - 2
    left_labels: list[Hashable] = [("batch", rank - (a - 2) + k) for k in range(max(a - 2, 0))]
    right_labels: list[Hashable] = [("batch", rank - (b - 2) + k) for k in range(max(b - 2, 0))]
    out: list[Hashable] = [("batch", k) for k in range(max(rank, 0))]
    if a > 1:
        left_labels.append("row")
        out.append("row")
    left_labels.append("in")
    right_labels.append("in")
    if b > 1:
        right_labels.append("column")
        out.append("column")
    return analysis.product([(left, left_labels), (right, right_labels)], out, shape)


@rule("addmm", "baddbmm", "addmv")
def addmm(analysis: Analysis, call: Call) -> Value | None:
    """``bias + a @ b``."""
    if call.kwargs.get("beta", 1) == 0:
        return None
    bias, left, right = (operand(analysis, argument) for argument in call.args[:3])
    return analysis.add([product(analysis, left, right, call.shape), bias], call.shape)


@rule("outer", "ger")
def outer(analysis: Analysis, call: Call) -> Value:
    """Outer product of two vectors."""
    left, right = (operand(analysis, argument) for argument in call.args[:2])
    return analysis.product([(left, [0]), (right, [1])], [0, 1], call.shape)


@rule("einsum")
def einsum(analysis: Analysis, call: Call) -> Value | None:
    """Einstein summation, without ellipses or repeated labels within an operand."""
    equation = call.args[0].replace(" ", "")
    if "." in equation:
        return None
    inputs, _, out = equation.partition("->")
    terms = inputs.split(",")
    if "->" not in equation:
        letters = [c for c in inputs if c != ","]
        out = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    operands = [operand(analysis, value) for value in call.args[1]]
    if any(len(set(term)) != len(term) for term in terms):
        return None
    return analysis.product(list(zip(operands, terms, strict=True)), out, call.shape)


@rule("embedding")
def embedding(analysis: Analysis, call: Call) -> Value:
    """Rows of a table, chosen by data: the rows are pinned, the columns are a space."""
    table, index = operand(analysis, call.args[0]), operand(analysis, call.args[1])
    return lookup(analysis, table, 0, index, call.shape)


def lookup(
    analysis: Analysis, table: Value, axis: int, index: Value, shape: tuple[int, ...]
) -> Value:
    """Replace one axis of a table by the axes of an index tensor."""
    analysis.pin(table, axis)
    analysis.inputs.extend(slot.leaf for slot in table.axes[axis])
    analysis.pin(index)
    rank = len(index.shape)
    names: list[Hashable] = [("table", k) for k in range(len(table.shape))]
    picked = [("index", k) for k in range(rank)]
    frozen: list[Hashable] = [*picked, names[axis]]
    # a one-hot tensor of exponent zero, contracted with the table
    one_hot = analysis.new([*index.axes, table.axes[axis]], [*index.shape, table.shape[axis]])
    analysis.freeze(one_hot)
    out = [*names[:axis], *picked, *names[axis + 1 :]]
    return analysis.product([(table, names), (one_hot, frozen)], out, shape)


@rule("index", "index_select")
def index(analysis: Analysis, call: Call) -> Result:
    """Pick points of one axis by a constant index."""
    table = operand(analysis, call.args[0])
    if call.name == "aten.index_select":
        axis, chosen = normalise(call.args[1], len(table.shape)), call.args[2]
    else:
        given = [k for k, entry in enumerate(call.args[1]) if entry is not None]
        if len(given) != 1:
            return None
        axis, chosen = given[0], call.args[1][given[0]]
    if chosen.constant is None:
        return None
    return lookup(analysis, table, axis, chosen, call.shape)
