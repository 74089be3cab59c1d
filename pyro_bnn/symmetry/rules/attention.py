"""Scaled dot-product attention, as the contractions that it is made of."""

from __future__ import annotations

from collections.abc import Hashable

from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.rules.registry import Call, Result, operand, rule
from pyro_bnn.symmetry.values import Value


@rule("scaled_dot_product_attention", "_scaled_dot_product_attention_math")
def attention(analysis: Analysis, call: Call) -> Result:
    """Contract queries with keys, take the softmax, contract with values."""
    query, key, value = (operand(analysis, argument) for argument in call.args[:3])
    if call.kwargs.get("enable_gqa", False) or call.get(4, "dropout_p", 0.0):
        return None
    batch: list[Hashable] = [("batch", k) for k in range(len(query.shape) - 2)]
    logits_shape = (*query.shape[:-1], key.shape[-2])
    logits = analysis.product(
        [(query, [*batch, "to", "inner"]), (key, [*batch, "from", "inner"])],
        [*batch, "to", "from"],
        logits_shape,
    )
    mask = call.get(3, "attn_mask")
    if isinstance(mask, Value):
        logits = analysis.add([logits, mask], logits_shape)
    if call.get(5, "is_causal", False):
        analysis.pin(logits, -1)
        analysis.pin(logits, -2)
    names = range(len(logits_shape))
    analysis.mix(logits, [-1])
    weights = analysis.apply(logits, names, names, logits_shape, None, "none")
    result = analysis.product(
        [(weights, [*batch, "to", "from"]), (value, [*batch, "from", "channel"])],
        [*batch, "to", "channel"],
        call.shapes[0],
    )
    if len(call.shapes) == 1:
        return result
    return result, analysis.opaque(call.shapes[1])
