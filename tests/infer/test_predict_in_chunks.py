"""Chunks of draws and rows, and the sample of training rows, change no number."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

from pyro_bnn.data import Data, Split
from pyro_bnn.errors import UserError
from pyro_bnn.infer import predict as predict_module
from pyro_bnn.infer.cli import predicting
from pyro_bnn.infer.corrupted import predict_corrupted
from pyro_bnn.infer.predict import predict, predict_in_chunks
from pyro_bnn.logdensity import LogDensity


def model(x, y=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", x.shape[0]):
        return pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


@pytest.fixture
def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=generator)
    y = x.sum(1) + 0.5 * torch.randn(30, generator=generator)
    return Data(Split(x[:20], y[:20]), Split(x[20:], y[20:]))


@pytest.fixture
def density(data: Data) -> LogDensity:
    return LogDensity(model, data.train.x, data.train.y)


@pytest.fixture
def draws() -> torch.Tensor:
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scalars", [1, 12, 10**6])
def test_chunks_equal_the_whole(density, data, draws, scalars, monkeypatch) -> None:
    monkeypatch.setattr(predict_module, "INPUTS_AT_ONCE", scalars)
    whole = predict(density, {"w": draws}, data.test.x, data.test.y)
    chunks = predict_in_chunks(density, {"w": draws}, data.test.x, data.test.y)
    for one, other in zip(whole, chunks, strict=True):
        torch.testing.assert_close(one, other)


def test_the_likelihood_is_looked_at_a_few_rows_at_a_time(data, monkeypatch) -> None:
    seen = []

    def watched(x, y=None):
        seen.append(len(x))
        return model(x, y)

    density = LogDensity(watched, data.train.x, data.train.y)
    monkeypatch.setattr(predict_module, "INPUTS_AT_ONCE", 12)
    seen.clear()
    assert predict_module.likelihood_kind(density, data.test.x, data.test.y) == "continuous"
    assert seen[:3] == [4, 4, 2]
    assert max(seen) < len(data.test.x)


def test_the_log_likelihood_is_the_closed_form_on_rows_that_fit(
    density, data, draws, tmp_path, monkeypatch
) -> None:
    path = tmp_path / "trace.nc"
    posterior = xr.Dataset({"w": (("chain", "draw", "x0"), draws[None].numpy())})
    xr.DataTree.from_dict({"posterior": posterior}).to_netcdf(path)
    exact = torch.distributions.Normal(draws @ data.train.x.T, 0.5).log_prob(data.train.y)
    for room, count in ((10**6, 20), (7 * 6, 6), (1, 1)):
        monkeypatch.setattr(predicting, "LOG_LIKELIHOOD_VALUES", room)
        predicting.record_predictions(path, density, data, "continuous")
        with xr.open_datatree(path) as trace:
            group = trace["log_likelihood"].to_dataset().load()
        assert group.attrs["rows"] == 20
        assert group.sizes["train"] == count
        rows = group["train"].to_numpy().tolist()
        found = torch.tensor(group["y"].to_numpy()[0])
        torch.testing.assert_close(found, exact[:, rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("chains", "draws"), [(1000, 1), (64, 4), (3, 500), (2, 7)])
def test_corrupted_inputs_are_predicted_by_draws_of_all_chains(
    density, data, tmp_path, monkeypatch, chains, draws
) -> None:
    path = tmp_path / "trace.nc"
    numbers = np.arange(chains * draws, dtype="float32").reshape(chains, draws, 1)
    posterior = xr.Dataset({"w": (("chain", "draw", "x0"), numbers.repeat(3, 2))})
    posterior = posterior.assign_coords(chain=range(chains), draw=range(draws))
    xr.DataTree.from_dict({"posterior": posterior}).to_netcdf(path)
    seen = []

    def watched(density, values, *others):
        seen.append(values["w"])
        return predict_corrupted(density, values, *others)

    monkeypatch.setattr(predicting, "predict_corrupted", watched)
    several = Data(data.train, data.test, corruptions={"none": lambda x, severity, generator: x})
    predicting.record_corrupted(path, density, several, "continuous", 0)
    kept = seen[0][:, 0]
    assert len(kept) == len(kept.unique()) == min(200, chains * draws)
    counts = (kept // draws).long().bincount(minlength=chains)
    assert counts.max() - counts[counts > 0].min() <= 1
    gaps = kept.diff()
    assert gaps.max() - gaps.min() <= 1
    assert (kept[0], kept[-1]) == (0, chains * draws - 1)


def test_corrupted_predictions_are_the_mixture_over_draws(density, data, draws) -> None:
    def shift(x, severity, generator):
        return x + severity

    found = predict_corrupted(density, {"w": draws}, data.test.x, data.test.y, shift)
    for place, severity in enumerate((1, 2, 3, 4, 5)):
        mean = (data.test.x + severity) @ draws.T
        each = torch.distributions.Normal(mean, 0.5).log_prob(data.test.y[:, None])
        torch.testing.assert_close(found.log_predictive[place], each.exp().mean(1).log())
        torch.testing.assert_close(found.mean[place], mean.mean(1))
    with pytest.raises(UserError, match="finite inputs of the same shape"):
        predict_corrupted(density, {"w": draws}, data.test.x, data.test.y, lambda x, s, g: x[:, :1])
