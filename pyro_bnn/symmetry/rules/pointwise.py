"""Elementwise operators: what lets a scale through, what lets a sign through."""

from __future__ import annotations

from fractions import Fraction

from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.relations import Parity
from pyro_bnn.symmetry.rules.registry import RULES, Call, Result, Rule, labels, operand, rule
from pyro_bnn.symmetry.values import Value

IDENTITY = (
    "alias",
    "clone",
    "contiguous",
    "detach",
    "to",
    "_to_copy",
    "type_as",
    "lift_fresh_copy",
)
ODD_HOMOGENEOUS = ("neg", "positive")
HOMOGENEOUS = ("relu", "relu_")
EVEN_HOMOGENEOUS = ("abs",)
ODD = (
    "tanh",
    "sin",
    "erf",
    "asinh",
    "atan",
    "sinh",
    "tan",
    "erfinv",
    "asin",
    "atanh",
    "softshrink",
    "hardshrink",
    "tanhshrink",
    "sign",
    "round",
    "trunc",
)
EVEN = ("cos", "cosh")
PLAIN = (
    "sigmoid", "silu", "gelu", "softplus", "elu", "selu", "celu", "mish", "hardswish",
    "hardsigmoid", "relu6", "log_sigmoid", "exp", "log", "exp2", "log2", "log10", "log1p",
    "expm1", "digamma", "lgamma", "floor", "ceil", "logit", "erfc", "threshold", "erfcx",
    "special_erfcx", "log_ndtr", "special_log_ndtr", "ndtr", "isnan", "isinf", "isfinite",
    "logical_not", "bitwise_not", "nan_to_num", "silu_", "hardswish_", "relu6_",
)  # fmt: skip

JOINT = (
    "where", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "logical_and",
    "logical_or", "xlogy", "special_xlogy", "special_xlog1py", "logaddexp", "atan2",
    "binary_cross_entropy_with_logits", "binary_cross_entropy", "poisson_nll_loss", "fmod",
    "remainder", "masked_fill", "hypot", "floor_divide", "lerp",
)  # fmt: skip


def unary(degree: Fraction | int | None, parity: Parity) -> Rule:
    """Return the rule of an elementwise function of one tensor."""

    def apply(analysis: Analysis, call: Call) -> Value:
        value = operand(analysis, call.args[0])
        return analysis.apply(value, labels(value), labels(value), call.shape, degree, parity)

    return apply


for _names, _degree, _parity in (
    (ODD_HOMOGENEOUS, 1, "odd"),
    (HOMOGENEOUS, 1, "none"),
    (EVEN_HOMOGENEOUS, 1, "even"),
    (ODD, None, "odd"),
    (EVEN, None, "even"),
    (PLAIN, None, "none"),
):
    for _name in _names:
        RULES[f"aten.{_name}"] = unary(_degree, _parity)  # type: ignore[arg-type]

RULES["aten.sqrt"] = unary(Fraction(1, 2), "none")
RULES["aten.rsqrt"] = unary(Fraction(-1, 2), "none")
RULES["aten.reciprocal"] = unary(-1, "odd")
RULES["aten.square"] = unary(2, "even")


@rule(*IDENTITY)
def same(analysis: Analysis, call: Call) -> Value:
    """Pass the same numbers on."""
    value = operand(analysis, call.args[0])
    return analysis.rearranged(value, value.axes, value.shape)


@rule("dropout", "dropout_", "native_dropout", "feature_dropout", "alpha_dropout")
def dropout(analysis: Analysis, call: Call) -> Result:
    """Pass the same numbers on: evaluated dropout is the identity."""
    return None if call.get(2, "train", False) else same(analysis, call)


@rule("leaky_relu", "leaky_relu_", "rrelu")
def leaky_relu(analysis: Analysis, call: Call) -> Result:
    """Let positive scales through a leaky rectifier of any slope."""
    return unary(1, "none")(analysis, call)


@rule("prelu", "_prelu_kernel")
def prelu(analysis: Analysis, call: Call) -> Value:
    """Tie the slopes of a parametric rectifier to its channels, without exponents."""
    value, slope = call.args[0], operand(analysis, call.args[1])
    names = labels(value)
    analysis.freeze(slope)
    if len(slope.shape) == len(names):
        slope_names: list[int] = list(names)
    else:
        slope_names = [1 if len(names) > 1 else 0] * len(slope.shape)
    # the slope joins as a factor of exponent zero, so that only the rectifier's law remains
    joined = analysis.product([(value, names), (slope, slope_names)], names, value.shape)
    return analysis.apply(joined, names, names, call.shape, 1, "none")


@rule("hardtanh", "clamp", "clip", "hardtanh_")
def clamp(analysis: Analysis, call: Call) -> Result:
    """Read clamping as odd between opposite limits, homogeneous at zero."""
    hard = call.name.startswith("aten.hardtanh")
    low = call.get(1, "min_val" if hard else "min", -1.0 if hard else None)
    high = call.get(2, "max_val" if hard else "max", 1.0 if hard else None)
    if isinstance(low, Value) or isinstance(high, Value):
        return None
    if low is not None and high is not None and low == -high:
        return unary(None, "odd")(analysis, call)
    if (low, high) in ((0, None), (None, 0)):
        return unary(1, "none")(analysis, call)
    return unary(None, "none")(analysis, call)


@rule("clamp_min", "clamp_max")
def clamp_one_side(analysis: Analysis, call: Call) -> Result:
    """Read clamping at zero as a rectifier."""
    if isinstance(call.args[1], Value):
        return None
    return unary(1 if call.args[1] == 0 else None, "none")(analysis, call)


@rule("pow")
def power(analysis: Analysis, call: Call) -> Result:
    """Multiply the exponent by a constant power."""
    exponent = call.args[1]
    if isinstance(exponent, Value):
        if exponent.constant is None or exponent.constant.numel() != 1:
            return None
        exponent = exponent.constant.item()
    if not isinstance(call.args[0], Value):
        return None
    degree = Fraction(exponent).limit_denominator(64)
    if float(degree) != float(exponent):
        return unary(None, "none")(analysis, call)
    whole = degree.denominator == 1
    parity: Parity = "none" if not whole else "odd" if degree.numerator % 2 else "even"
    return unary(degree, parity)(analysis, call)


@rule("add", "sub", "rsub", "add_", "sub_")
def add(analysis: Analysis, call: Call) -> Value:
    """Share spaces and exponents between both sides of a sum."""
    both = [operand(analysis, argument) for argument in call.args[:2]]
    return analysis.add(both, call.shape)


@rule("mul", "mul_")
def multiply(analysis: Analysis, call: Call) -> Value:
    """Add up the exponents of a product."""
    both = [operand(analysis, argument) for argument in call.args[:2]]
    return analysis.multiply(both, call.shape)


@rule("div", "true_divide", "div_")
def divide(analysis: Analysis, call: Call) -> Result:
    """Read a quotient as a product with the reciprocal."""
    if call.get(2, "rounding_mode") is not None:
        return None
    over, under = (operand(analysis, argument) for argument in call.args[:2])
    names = labels(under)
    inverse = analysis.apply(under, names, names, under.shape, -1, "odd")
    return analysis.multiply([over, inverse], call.shape)


@rule(*JOINT)
def joint(analysis: Analysis, call: Call) -> Result:
    """Share spaces between several tensors and let no exponent through."""
    if call.shape == () and any(value.shape != () for value in call.tensors()):
        return None
    inputs = []
    for value in call.tensors():
        if value.constant is None:
            analysis.freeze(value)
        inputs.append(value)
    return analysis.add(inputs, call.shape)
