"""A script whose batch norm is in training mode: from the run to checkpoints and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pyro_bnn.trace import export_checkpoints, open_trace

NORMED = ("nn.Tanh()", "nn.BatchNorm1d(3), nn.Tanh()")
SHORT = ["--set=guide.epochs=5", "--set=guide.batch_size=8", "--set=run.threads=1", "--chains=2"]


def test_a_run_predicts_by_the_statistics_in_its_trace(command, script, tmp_path):
    model = script(NORMED, ("gaussian(bnn(x), y)", "gaussian(bnn(x), y, noise=0.1)"))
    run = tmp_path / "run"
    recipe = ["--recipe", "inference/map.toml", "--set=quotient.permutation=align"]
    outcome = command("infer", model, *recipe, "--out", run, *SHORT)
    assert outcome.code == 0, outcome.err
    with open_trace(run) as trace:
        posterior = trace["posterior"].to_dataset().load()
        assert posterior["1.running_mean"].shape == (2, 1, 3)
        assert posterior["1.running_mean"].dims[2] == posterior["0.weight"].dims[2]
        assert float(trace["symmetry"].attrs["function_error"]) < 1e-8
        predicted = trace["predictions"]["mean"].to_numpy()
        assert trace["canonical_prior"]["1.running_var"].shape[0] == 2
        ends = trace["mode_line"]["log_density"].sel(space="weight").to_numpy()[[0, -1]]
        assert ends == pytest.approx(trace["sample_stats"]["lp"].to_numpy()[:, 0], rel=1e-4)
    x = torch.linspace(-2, 2, 60).reshape(30, 2)[20:]
    for member in range(2):
        net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)).eval()
        state = {
            name: torch.from_numpy(posterior[name].to_numpy()[member, 0])
            for name in net.state_dict()
            if name in posterior
        }
        net.load_state_dict(state, strict=False)
        with torch.no_grad():
            expected = net(x).squeeze(-1).numpy()
        np.testing.assert_allclose(predicted[member, 0], expected, rtol=1e-4, atol=1e-5)

    with open_trace(run) as trace:
        export_checkpoints(trace, tmp_path / "exported")
    out = tmp_path / "back.nc"
    assert command("import", tmp_path / "exported", "--model", model, "--out", out).code == 0
    assert command("quotient", out, "--model", model).code == 0
    with open_trace(out) as trace:
        for name, values in posterior.data_vars.items():
            np.testing.assert_array_equal(trace["posterior"][name].to_numpy(), values.to_numpy())
        assert "1.running_var" in trace["canonical_posterior"]
