"""Recurrent layers, unrolled for as many steps as it takes to tie every space."""

from __future__ import annotations

from collections.abc import Sequence

from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.rules.contraction import affine
from pyro_bnn.symmetry.rules.movement import joined, picked, run
from pyro_bnn.symmetry.rules.registry import Call, Result, labels, operand, rule
from pyro_bnn.symmetry.values import Stacked, Value

STEPS = 3
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@rule(*GATES)
def recurrent(analysis: Analysis, call: Call) -> Result:
    """Read a recurrent layer as its cell, applied a few times."""
    kind = call.name.removeprefix("aten.")
    if not isinstance(call.args[2], (list, tuple)):
        return None  # packed sequences
    value = operand(analysis, call.args[0])
    state, weights, biased, layers, _, training, bidirectional, batch_first = call.args[1:9]
    if training and call.args[5] > 0:
        return None
    states = state if kind == "lstm" else [state]
    time = 1 if batch_first else 0
    analysis.pin(value, time)
    steps = min(value.shape[time], STEPS)
    inputs = [picked(analysis, value, time, k) for k in range(steps)]
    per_layer = 4 if biased else 2
    directions = 2 if bidirectional else 1
    if len(weights) != layers * directions * per_layer:
        return None  # projections of the state
    finals: list[list[Value]] = [[] for _ in states]
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            row = layer * directions + direction
            own = [operand(analysis, w) for w in weights[row * per_layer :][:per_layer]]
            start = [_row(analysis, s, row) for s in states]
            hidden, last = _unroll(analysis, kind, inputs, start, own)
            outputs.append(hidden)
            for collected, final in zip(finals, last, strict=True):
                collected.append(final)
        inputs = [_side_by_side(analysis, step) for step in zip(*outputs, strict=True)]
    whole = call.shapes[0]
    names = ["time", "batch", "unit"] if not batch_first else ["batch", "time", "unit"]
    same = analysis.add(inputs, inputs[0].shape)
    grid = analysis.opaque((value.shape[time],))
    result = analysis.product([(same, ["batch", "unit"]), (grid, ["time"])], names, whole)
    ends = [
        Stacked(tuple(collected), 0, shape)
        for collected, shape in zip(finals, call.shapes[1:], strict=True)
    ]
    return result, *ends


def _unroll(
    analysis: Analysis,
    kind: str,
    inputs: Sequence[Value],
    start: Sequence[Value],
    weights: Sequence[Value],
) -> tuple[list[Value], list[Value]]:
    """Apply one cell to a few inputs; return its outputs and its last state."""
    state = list(start)
    size = state[0].shape[-1]
    outputs = []
    for value in inputs:
        shape = (value.shape[0], weights[0].shape[0])
        biases = weights[2:] if len(weights) == 4 else (None, None)
        from_input = affine(analysis, value, weights[0], biases[0], shape)
        from_state = affine(analysis, state[0], weights[1], biases[1], shape)
        count = shape[1] // size
        if kind == "gru":
            state = [_gru(analysis, from_input, from_state, state[0], size)]
        else:
            total = analysis.add([from_input, from_state], shape)
            gates = [run(analysis, total, 1, k * size, size) for k in range(count)]
            if kind == "lstm":
                state = _lstm(analysis, gates, state[1])
            else:
                state = [_map(analysis, gates[0], "tanh" if kind == "rnn_tanh" else "relu")]
        outputs.append(state[0])
    return outputs, state


def _lstm(analysis: Analysis, gates: Sequence[Value], cell: Value) -> list[Value]:
    shape = gates[0].shape
    into, keep, out = (_map(analysis, gates[k], "sigmoid") for k in (0, 1, 3))
    new = analysis.multiply([into, _map(analysis, gates[2], "tanh")], shape)
    cell = analysis.add([analysis.multiply([keep, cell], shape), new], shape)
    return [analysis.multiply([out, _map(analysis, cell, "tanh")], shape), cell]


def _gru(
    analysis: Analysis, from_input: Value, from_state: Value, state: Value, size: int
) -> Value:
    shape = (from_input.shape[0], size)
    a = [run(analysis, from_input, 1, k * size, size) for k in range(3)]
    b = [run(analysis, from_state, 1, k * size, size) for k in range(3)]
    reset, update = (_map(analysis, analysis.add([a[k], b[k]], shape), "sigmoid") for k in (0, 1))
    inner = analysis.add([a[2], analysis.multiply([reset, b[2]], shape)], shape)
    new = analysis.multiply([update, _map(analysis, inner, "tanh")], shape)
    return analysis.add([new, analysis.multiply([update, state], shape)], shape)


def _map(analysis: Analysis, value: Value, name: str) -> Value:
    names = labels(value)
    if name == "tanh":
        return analysis.apply(value, names, names, value.shape, None, "odd")
    degree = 1 if name == "relu" else None
    return analysis.apply(value, names, names, value.shape, degree, "none")


def _side_by_side(analysis: Analysis, values: Sequence[Value]) -> Value:
    if len(values) == 1:
        return values[0]
    total = sum(value.shape[1] for value in values)
    return joined(analysis, values, 1, (values[0].shape[0], total))


def _row(analysis: Analysis, state: Value, row: int) -> Value:
    """Return the state of one layer and direction; constant ones need not share spaces."""
    if state.constant is not None:
        return analysis.constant(state.constant[row])
    return picked(analysis, state, 0, row)


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(analysis: Analysis, call: Call) -> Result:
    """Read one step of a recurrent cell."""
    kind = call.name.removeprefix("aten.").removesuffix("_cell")
    states = call.args[1] if kind == "lstm" else [call.args[1]]
    start = [operand(analysis, state) for state in states]
    weights = [operand(analysis, w) for w in call.args[2:6] if w is not None]
    _, last = _unroll(analysis, kind, [operand(analysis, call.args[0])], start, weights)
    return tuple(last) if kind == "lstm" else last[0]
