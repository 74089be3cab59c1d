"""Which draws stand for a posterior on corrupted inputs."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import xarray as xr

from pyro_bnn import Data, LogDensity, Split
from pyro_bnn.infer.cli import predicting
from pyro_bnn.infer.corrupted import predict_corrupted
from pyro_bnn.trace import open_trace, write_trace


def model(x, y=None):
    """Regress on one weight."""
    w = pyro.sample("w", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def test_dead_chains_have_no_say(tmp_path, monkeypatch):
    chains, draws = 4, 75
    x = torch.linspace(-1, 1, 6)[:, None]
    split = Split(x, x[:, 0])
    data = Data(split, split, corruptions={"shift": lambda x, severity, generator: x + severity})
    weights = np.broadcast_to(np.arange(chains)[:, None, None], (chains, draws, 1))
    posterior = xr.Dataset({"w": (("chain", "draw", "w_dim_0"), weights.astype(np.float32))})
    trace = xr.DataTree.from_dict({"posterior": posterior})
    trace.attrs["dead_chains"] = "[2]"
    write_trace(trace, tmp_path / "trace.nc")
    used = {}
    average = predicting.predict_corrupted

    def watched(density, values, *rest):
        chain, count = np.unique(values["w"].numpy(), return_counts=True)
        used.update(zip(chain.astype(int).tolist(), count.tolist(), strict=True))
        return average(density, values, *rest)

    monkeypatch.setattr(predicting, "predict_corrupted", watched)
    density = LogDensity(model, x, x[:, 0])
    predicting.record_corrupted(tmp_path / "trace.nc", density, data, "continuous", seed=0)
    assert sorted(used) == [0, 1, 3]
    assert max(used.values()) - min(used.values()) <= 1
    with open_trace(tmp_path / "trace.nc") as stored:
        assert stored["predictions_corrupted"].attrs["draws"] == sum(used.values()) == 200


def test_a_law_without_a_mean_keeps_its_density():
    def heavy(x, y=None):
        w = pyro.sample("w", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Cauchy(x @ w, 1.0), obs=y)

    x = torch.linspace(-1, 1, 6)[:, None]
    y, w = x[:, 0], torch.tensor([[0.5], [1.5]])
    density = LogDensity(heavy, x, y)
    found = predict_corrupted(density, {"w": w}, x, y, lambda x, severity, generator: x + severity)
    for place, severity in enumerate((1, 2, 3, 4, 5)):
        each = torch.distributions.Cauchy((x + severity) @ w.T, 1.0).log_prob(y[:, None])
        torch.testing.assert_close(found.log_predictive[place], each.exp().mean(1).log())
