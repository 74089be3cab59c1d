"""Reductions over axes, and the normalised exponentials that end a network."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.relations import Parity
from pyro_bnn.symmetry.rules.registry import Call, labels, normalise, operand, rule
from pyro_bnn.symmetry.values import Value


def reduced(
    analysis: Analysis,
    value: Value,
    axes: Any,
    shape: tuple[int, ...],
    degree: Fraction | int | None,
    parity: Parity,
) -> Value:
    """Reduce over axes (None: all), whether or not they are kept with one point."""
    rank = len(value.shape)
    if axes is None or axes == []:
        dropped = set(range(rank))
    else:
        chosen: Sequence[int] = [axes] if isinstance(axes, int) else axes
        dropped = {normalise(axis, rank) for axis in chosen}
    kept = len(shape) == rank
    out = [
        ("one", axis) if axis in dropped else axis
        for axis in range(rank)
        if kept or axis not in dropped
    ]
    return analysis.apply(value, labels(value), out, shape, degree, parity)


@rule("sum", "mean", "nansum", "nanmean")
def total(analysis: Analysis, call: Call) -> Value:
    """Contract with ones."""
    value = operand(analysis, call.args[0])
    return reduced(analysis, value, call.get(1, "dim"), call.shape, 1, "odd")


@rule("var", "std", "amax", "amin", "norm", "linalg_vector_norm", "argmax")
def extreme(analysis: Analysis, call: Call) -> Value | None:
    """Reduce by a positively homogeneous function."""
    value = operand(analysis, call.args[0])
    degree, parity = (1, "none")
    if call.name == "aten.argmax":
        return None
    if call.name in ("aten.norm", "aten.linalg_vector_norm"):
        return reduced(analysis, value, call.get(2, "dim"), call.shape, 1, "even")
    if call.name in ("aten.var", "aten.std"):
        degree, parity = (2 if call.name == "aten.var" else 1), "even"
        if isinstance(call.get(1, "dim"), bool):
            return reduced(analysis, value, None, call.shape, degree, parity)  # type: ignore[arg-type]
    return reduced(analysis, value, call.get(1, "dim"), call.shape, degree, parity)  # type: ignore[arg-type]


@rule("logsumexp")
def logsumexp(analysis: Analysis, call: Call) -> Value:
    """Reduce by a symmetric function without exponents."""
    value = operand(analysis, call.args[0])
    return reduced(analysis, value, call.args[1], call.shape, None, "none")


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "softmin", "_safe_softmax")
def softmax(analysis: Analysis, call: Call) -> Value:
    """Let permutations through, no exponents."""
    value = operand(analysis, call.args[0])
    analysis.mix(value, [call.args[1]])
    return analysis.apply(value, labels(value), labels(value), call.shape, None, "none")


@rule("gather")
def gather(analysis: Analysis, call: Call) -> Value:
    """Pin the axis of which data picks points."""
    value, index = call.args[0], operand(analysis, call.args[2])
    value = operand(analysis, value)
    analysis.pin(value)
    analysis.freeze(value)
    if index.constant is None:
        analysis.freeze(index)
        analysis.pin(index)
    return analysis.opaque(call.shape)


@rule("nll_loss", "nll_loss_nd", "cross_entropy_loss", "nll_loss2d")
def labelled_loss(analysis: Analysis, call: Call) -> Value:
    """Pin the classes that labels choose from."""
    for value in call.tensors():
        if value.constant is None:
            analysis.pin(value)
            analysis.freeze(value)
    return analysis.opaque(call.shape)
