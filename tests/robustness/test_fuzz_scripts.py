"""Model scripts that return anything: run, or refused in one sentence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.cli.stages import declare
from pyro_bnn.infer.predict import likelihood_kind
from pyro_bnn.infer.recipe import Recipe

SCRIPT = """
import pyro
import pyro.distributions as dist
import torch
from pyro_bnn import Data, Split


def model(x, y=None):
    w = pyro.sample("w", {prior})
    output = {output}
    with pyro.plate("data", {rows}):
        return pyro.sample("y", {likelihood}, obs={observed})


def data():
    x, y = {x}, {y}
    return {returned}
"""
SOUND = {
    "prior": "dist.Normal(torch.zeros(2), 1.0).to_event(1)",
    "output": "x @ w",
    "rows": "x.shape[0]",
    "likelihood": "dist.Normal(output, 1.0)",
    "observed": "y",
    "x": "torch.ones(6, 2)",
    "y": "torch.ones(6)",
    "returned": "Data(Split(x[:4], y[:4]), Split(x[4:], y[4:]))",
}
ODD = {
    "prior": [
        "dist.Normal(torch.zeros(2), 1.0)",
        "dist.Normal(torch.zeros(3), 1.0).to_event(1)",
        "dist.Poisson(1.0)",
        "dist.Normal(torch.full((2,), float('nan')), 1.0).to_event(1)",
        "dist.Normal(torch.zeros(0), 1.0).to_event(1)",
        "None",
        "dist.LogNormal(torch.zeros(2), 1e30).to_event(1)",
    ],
    "output": [
        "x @ w if w.sum() > 0 else -(x @ w)",
        "torch.zeros(3)",
        "(x @ w).item()",
        "1 / 0",
        "x @ w + torch.randn(4)",
        "(x @ w).numpy()",
        "x @ w * float('inf')",
    ],
    "rows": ["3", "0", "None", "'many'"],
    "likelihood": [
        "dist.Categorical(logits=output)",
        "dist.Bernoulli(logits=output)",
        "dist.Normal(output, -1.0)",
        "dist.Normal(output[:, None], 1.0)",
        "dist.MultivariateNormal(output, torch.eye(len(output)))",
        "output",
    ],
    "observed": ["None", "y[:2]", "y.long()", "'y'"],
    "x": [
        "torch.ones(6)",
        "torch.ones(0, 2)",
        "[1, 2]",
        "torch.full((6, 2), float('nan'))",
        "None",
    ],
    "y": ["torch.ones(5)", "torch.zeros(6, dtype=torch.long) - 3", "torch.ones(6, 2)", "3"],
    "returned": [
        "None",
        "Data(Split(x, y), None)",
        "(x, y)",
        "Data(Split(x[:4], y), Split(x[4:], y))",
        "exit(3)",
        "int('x')",
        "Data(Split(x[:4], y[:4]), Split(x[4:, :1], y[4:]))",
    ],
}
CASES = [(part, text) for part, texts in ODD.items() for text in texts]
fuzzed = settings(settings.get_profile("robustness"), max_examples=60)


def run(path):
    """Do what the command does before it samples, and compute a gradient."""
    density, data = declare(ModelScript.load(path), Recipe())
    likelihood_kind(density, data.test.x, data.test.y)
    start = density.initial_position(2, torch.Generator().manual_seed(0))
    density.value_and_grad(start)


def test_the_sound_script_runs(outcome, tmp_path):
    path = tmp_path / "sound.py"
    path.write_text(SCRIPT.format(**SOUND), encoding="utf-8")
    assert outcome(run, path) == (None, None)


@pytest.mark.parametrize(("part", "text"), CASES)
def test_one_odd_part(outcome, tmp_path, part, text):
    path = tmp_path / "odd.py"
    path.write_text(SCRIPT.format(**{**SOUND, part: text}), encoding="utf-8")
    _, refused = outcome(run, path)
    assert refused is None or refused.strip()


@pytest.mark.slow
@fuzzed
@given(st.fixed_dictionaries({part: st.sampled_from([SOUND[part], *ODD[part]]) for part in ODD}))
def test_several_odd_parts(outcome, tmp_path_factory, parts):
    path = tmp_path_factory.getbasetemp() / "odd.py"
    path.write_text(SCRIPT.format(**parts), encoding="utf-8")
    _, refused = outcome(run, path)
    assert refused is None or refused.strip()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"def model(",
        b"# coding: latin-1\n# \xe9\nx = 1\n",
        b"# coding: latin-1\n# \xe9\n" + SCRIPT.format(**SOUND).encode(),
        b"raise SystemExit",
        b"\0",
    ],
)
def test_files_that_are_no_scripts(outcome, tmp_path, content):
    path = tmp_path / "odd.py"
    path.write_bytes(content)
    _, refused = outcome(ModelScript.load, path)
    assert refused is not None
    assert "odd.py" in refused
