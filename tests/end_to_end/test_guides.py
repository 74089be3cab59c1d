"""Guides on the command line: trace, quotient, report and resumption as for any sampler."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import affine_coupling, iterated
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoNormalizingFlow
from torch import nn

from pyro_bnn.diagnostics import write_report
from pyro_bnn.trace import from_pyro, open_trace

SHORT = [
    "--set=guide.epochs=5",
    "--set=guide.batch_size=8",
    "--set=guide.learning_rate=0.001",
    "--set=run.threads=1",
    "--chains=3",
]


@pytest.mark.parametrize(
    ("recipe", "draws"), [("map", 1), pytest.param("swag", 6, marks=pytest.mark.slow)]
)
def test_a_guide_makes_what_a_sampler_makes(command, script, tmp_path, recipe, draws):
    own = [f"--draws={draws}", "--set=run.segment_draws=4"]
    own += (
        ["--set=guide.collect_epochs=4", "--set=guide.rank=3", "--set=guide.collect_rate=0.001"]
        if recipe == "swag"
        else []
    )
    run = tmp_path / "run"
    outcome = command(
        "infer", script(), "--recipe", f"inference/{recipe}.toml", "--out", run, *SHORT, *own
    )
    assert outcome.code == 0, outcome.err
    assert f"{recipe}, 3 members, {draws} draws" in outcome.out
    with open_trace(run) as trace:
        assert trace["posterior"]["0.weight"].shape == (3, draws, 3, 2)
        assert trace["canonical_posterior"]["0.weight"].shape == (3, draws, 3, 2)
        assert trace["predictions"]["log_predictive"].shape == (3, draws, 10)
        assert trace.attrs["method"] == recipe
        assert json.loads(str(trace.attrs["members"])) == [0, 1, 2]
        assert json.loads(str(trace.attrs["failed_members"])) == []
        before = trace["posterior"]["0.weight"].to_numpy()
        first = trace["predictions"]["mean"].to_numpy()[0, 0]
        alone = trace["point_estimate"]["mean"].to_numpy()
        # The single network beside members that are single networks is the first of them.
        assert np.allclose(alone, first, rtol=1e-5) == (recipe == "map")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["draws"] == draws
    assert summary["test.nll"] is not None
    assert summary["batching"].startswith("3 members at once")
    assert (run / "report.html").stat().st_size > 10_000
    # Resumed when nothing is left to do, for smaller blocks in more processes: the same trace. Not
    # for other epochs.
    (run / "trace.nc").unlink()
    smaller = ["--set=guide.block=1", "--set=guide.workers=2"]
    assert command("infer", "--resume", "--out", run, "--no-report", *smaller).code == 0
    with open_trace(run) as trace:
        assert (trace["posterior"]["0.weight"].to_numpy() == before).all()
    command("infer", "--resume", "--out", run, "--set=guide.epochs=6").assert_refused(
        "guide.epochs = 5, not 6"
    )


def test_checkpoints_from_elsewhere_enter_the_quotient(command, script, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for seed in range(4):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).half()
        torch.save(net.state_dict(), folder / f"{seed}.pt")
    (folder / "4.pt").write_bytes(b"")
    model = script(("gaussian(bnn(x), y)", "gaussian(bnn(x), y, noise=0.1)"))
    out = tmp_path / "elsewhere.nc"
    outcome = command("import", folder, "--model", model, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "4 files, 1 skipped" in outcome.out
    assert "4.pt: the file is empty" in outcome.out
    assert command("quotient", out, "--model", model).code == 0
    with open_trace(out) as trace:
        assert trace["canonical_posterior"]["0.weight"].shape == (4, 1, 3, 2)
        assert trace["posterior"]["0.weight"].dims[2] == trace["posterior"]["2.weight"].dims[3]
    command("import", tmp_path / "nowhere", "--model", model).assert_refused("holds no checkpoint")


def test_members_that_fail_are_told(command, script, tmp_path):
    outcome = command(
        *("infer", script(), "--recipe", "inference/map.toml", "--out", tmp_path / "run", *SHORT),
        *("--set=guide.fail_above=-1000.0", "--set=guide.retries=0", "--no-report"),
    )
    outcome.assert_refused("all 3 members failed to converge", "above -1000")


def small(x, y=None):
    """Regress on two weights and a positive deviation."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    deviation = pyro.sample("deviation", dist.HalfNormal(torch.ones(())))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, deviation), obs=y)


FLOWS = {
    "inverse autoregressive": lambda: AutoIAFNormal(small, hidden_dim=[8]),
    "affine coupling": lambda: AutoNormalizingFlow(
        small, partial(iterated, 2, affine_coupling, hidden_dims=[8])
    ),
}


@pytest.mark.parametrize(
    "flow",
    ["inverse autoregressive", pytest.param("affine coupling", marks=pytest.mark.slow)],
)
def test_pyros_own_flows_become_a_trace_and_a_report(flow, tmp_path):
    """After some steps they are far narrower than the prior, and near the exact mean."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    x = torch.randn(60, 2)
    y = x @ torch.tensor([1.0, -1.0]) + 0.5 * torch.randn(60)
    guide = FLOWS[flow]()
    svi = SVI(small, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(x, y) for _ in range(300)]
    assert sum(losses[-20:]) < sum(losses[:20])
    trace = from_pyro(guide, model=small, model_args=(x, y), num_samples=400)
    weights = torch.from_numpy(trace["posterior"]["w"].to_numpy())[0]
    assert weights.shape == (400, 2)
    # Of the posterior whose deviation is known; its own standard deviations are 0.06.
    exact = torch.linalg.solve(x.T @ x / 0.25 + torch.eye(2), x.T @ y / 0.25)
    assert ((weights.mean(0) - exact).abs() < 0.3).all()
    assert (weights.std(0) < 0.5).all()
    write_report(trace, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000
