"""Normalisation: what it forgets is a symmetry, as far as its eps allows."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.rules.movement import viewed
from pyro_bnn.symmetry.rules.registry import Call, Result, labels, operand, rule
from pyro_bnn.symmetry.rules.window import along
from pyro_bnn.symmetry.values import Value


@rule("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def batch_norm(analysis: Analysis, call: Call) -> Result:
    """Evaluate batch norm: an affine map by channel.

    The running statistics follow a scale of the channel exactly: the mean by ``s``, the
    variance together with eps by ``s**2``.
    """
    value = operand(analysis, call.args[0])
    scale, shift, mean, variance = call.args[1:5]
    training = call.name == "aten.batch_norm" and call.get(5, "training", False)
    eps = call.get(7 if call.name == "aten.batch_norm" else 6, "eps", 1e-5)
    if training or mean is None:
        others = [k for k in labels(value) if k != 1]
        result = standardised(analysis, value, others, eps, centred=True)
        result = affine(analysis, result, 1, scale, shift)
    else:
        if variance.constant is None:
            analysis.offsets[variance.owner] = eps
            channel = list(value.shape[1:2])
            square = analysis.apply(value, labels(value), [1], channel, 2, "even")
            analysis.add([square, variance], channel)
        result = along(analysis, value, mean, 1, "sum")
        names = labels(variance)
        inverse = analysis.apply(variance, names, names, variance.shape, Fraction(-1, 2), "none")
        result = along(analysis, result, inverse, 1, "product")
        result = affine(analysis, result, 1, scale, shift)
    if len(call.shapes) == 1:
        return result
    return result, *(analysis.opaque(shape) for shape in call.shapes[1:])


@rule("instance_norm")
def instance_norm(analysis: Analysis, call: Call) -> Result:
    """Normalise each channel of each example over the grid."""
    value = operand(analysis, call.args[0])
    if not call.get(5, "use_input_stats", True):
        return None
    grid = range(2, len(value.shape))
    result = standardised(analysis, value, grid, call.get(7, "eps", 1e-5), centred=True)
    return affine(analysis, result, 1, call.args[1], call.args[2])


@rule("group_norm", "native_group_norm")
def group_norm(analysis: Analysis, call: Call) -> Result:
    """Normalise groups of channels: a group is a space of its own."""
    if call.name != "aten.group_norm":
        return None
    value = operand(analysis, call.args[0])
    groups, eps = call.args[1], call.get(4, "eps", 1e-5)
    batch, channels, *grid = value.shape
    result = viewed(analysis, value, (batch, groups, channels // groups, *grid))
    result = standardised(analysis, result, range(2, len(result.shape)), eps, centred=True)
    result = viewed(analysis, result, value.shape)
    return affine(analysis, result, 1, call.get(2, "weight"), call.get(3, "bias"))


@rule("layer_norm", "rms_norm", "native_layer_norm")
def layer_norm(analysis: Analysis, call: Call) -> Result:
    """Normalise the last axes: permutations and one sign pass, for RMS norm every sign."""
    value = operand(analysis, call.args[0])
    count = len(call.args[1])
    last = range(len(value.shape) - count, len(value.shape))
    centred = call.name != "aten.rms_norm"
    eps = call.get(4, "eps", 1e-5) if centred else call.get(3, "eps", None)
    result = standardised(analysis, value, last, 1.0 if eps is None else eps, centred=centred)
    for position, name in ((2, "weight"), (3, "bias" if centred else "")):
        parameter = call.get(position, name) if name else None
        if isinstance(parameter, Value):
            both = [result, parameter]
            combine = analysis.multiply if name == "weight" else analysis.add
            result = combine(both, result.shape)
    if len(call.shapes) == 1:
        return result
    return result, *(analysis.opaque(shape) for shape in call.shapes[1:])


def standardised(
    analysis: Analysis, value: Value, axes: Sequence[int], eps: float, *, centred: bool
) -> Value:
    """Divide by the deviation over some axes, after taking off the mean if `centred`.

    A common scale is forgotten only where eps is zero; a common sign passes.
    """
    analysis.freeze_axes(value, axes, signs=centred)
    analysis.mix(value, axes)
    names = labels(value)
    return analysis.apply(value, names, names, value.shape, None if eps else 0, "odd")


def affine(
    analysis: Analysis, value: Value, axis: int, scale: Value | None, shift: Value | None
) -> Value:
    """Multiply by a scale and add a shift along one axis."""
    if isinstance(scale, Value):
        value = along(analysis, value, scale, axis, "product")
    return along(analysis, value, shift, axis, "sum") if isinstance(shift, Value) else value
