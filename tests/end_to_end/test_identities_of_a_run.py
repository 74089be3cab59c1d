"""A run states the identities of its symmetry group at its own temperature."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_bnn.symmetry import virial
from pyro_bnn.trace import open_trace

TEMPERATURE = 0.25


def stored(run):
    with open_trace(run) as tree:
        return tree["identities"].to_dataset().load()


@pytest.mark.parametrize("every", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_a_run_and_its_quotient_state_the_identities(script, infer, command, tmp_path, every):
    model = script(("nn.Tanh()", "nn.ReLU()"), ('scale="fan_in"', "scale=0.7"))
    run = tmp_path / "run"
    outcome = infer(
        model, f"--set=run.posterior_temperature={TEMPERATURE}", f"--set=orbit.every={every}",
        "--no-report", "--out", run,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = stored(run)
    assert set(found["kind"].values) == {"virial"}
    assert set(found["where"].values) == {"h0"}
    assert found["unit"].values.tolist() == [-1, 0, 1, 2]
    deviation = 0.7 * TEMPERATURE**0.5
    with open_trace(run) as tree:
        incoming = {"0.weight": deviation, "0.bias": deviation}
        by_hand = virial(tree, incoming=incoming, outgoing={"2.weight": deviation}, unit="h0")
    np.testing.assert_allclose(found["value"].values[1:], by_hand.value, rtol=1e-4)
    np.testing.assert_allclose(found["expectation"].values, 2.0)

    assert command("quotient", run).code == 0
    assert stored(run).identical(found)


@pytest.mark.slow
def test_a_network_without_scales_moves_what_it_has(script, infer, tmp_path):
    outcome = infer(script(), "--set=orbit.every=1", "--no-report", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    with open_trace(tmp_path / "run") as tree:
        assert "identities" not in tree.children


def test_a_network_without_symmetry_cannot_be_moved(script, infer, tmp_path):
    model = script(("nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)", "nn.Linear(2, 1)"))
    outcome = infer(model, "--set=orbit.every=1", "--no-report", "--out", tmp_path / "run")
    outcome.assert_refused("nothing to move", "no symmetry")
