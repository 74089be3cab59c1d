"""Synthetic traces with known behaviour."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit, gammaln, log_softmax
from scipy.stats import norm

from pyro_bnn.diagnostics import diagnose
from pyro_bnn.diagnostics.diagnosis import Diagnosis

Array = NDArray[np.float64]


def autoregressive(
    rng: np.random.Generator, shape: tuple[int, ...], rho: float, apart: float = 0.0
) -> Array:
    """Stationary AR(1) chains of unit variance; `apart` is the deviation of the chains' means."""
    chains, draws, *inner = shape
    values = np.empty(shape)
    values[:, 0] = rng.normal(size=(chains, *inner))
    for t in range(1, draws):
        noise = rng.normal(size=(chains, *inner))
        values[:, t] = rho * values[:, t - 1] + np.sqrt(1 - rho**2) * noise
    return values + apart * rng.normal(size=(chains, 1, *inner))


def network_trace(
    likelihood: str = "categorical",
    chains: int = 4,
    draws: int = 100,
    inputs: int = 5,
    hidden: int = 4,
    classes: int = 3,
    tests: int = 40,
    seed: int = 0,
) -> xr.DataTree:
    """Make a trace of a network of one hidden layer whose chains sit in different modes.

    The function has converged, the weights have not, and the canonical weights are sorted by bias.
    """
    rng = np.random.default_rng(seed)
    outputs = classes if likelihood == "categorical" else 1
    sites = {
        "0.weight": ((hidden, inputs), ("h0", "x0")),
        "0.bias": ((hidden,), ("h0",)),
        "2.weight": ((outputs, hidden), ("y0", "h0")),
        "2.bias": ((outputs,), ("y0",)),
    }
    posterior = xr.Dataset(
        {
            name: (
                ("chain", "draw", *dims),
                autoregressive(rng, (chains, draws, *shape), 0.5, 2.0).astype(np.float32),
            )
            for name, (shape, dims) in sites.items()
        },
        coords={"chain": np.arange(chains), "draw": np.arange(draws)},
    )
    order = posterior["0.bias"].argsort(axis=-1)
    canonical = posterior.copy()
    for name in ("0.weight", "0.bias", "2.weight"):
        index = order.rename(h0="position")
        canonical[name] = posterior[name].isel(h0=index).rename(position="h0")
        canonical[name] = canonical[name].transpose(*posterior[name].dims)
    predictions, y, point = _predictions(rng, likelihood, chains, draws, classes, tests)
    diverging = np.zeros((chains, draws), dtype=bool)
    diverging[0, : draws // 20] = True
    potential = autoregressive(rng, (chains, draws), 0.3)
    stats = {
        "lp": -potential,
        "acceptance_rate": np.clip(0.8 + 0.1 * rng.normal(size=(chains, draws)), 0, 1),
        "diverging": diverging,
        "energy": 300 + 20 * potential + 10 * rng.normal(size=(chains, draws)),
        "n_steps": rng.integers(10, 40, size=(chains, draws)),
        "step_size": np.full((chains, draws), 0.013),
        "log_q": -potential + 0.1 * rng.normal(size=(chains, draws)),
    }
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(
                attrs={
                    "model": "synthetic_mlp",
                    "recipe": '[kernel]\nname = "hmc"\n\n[run]\nchains = 4\nseed = 0\n',
                    "creation_library": "pyro_bnn",
                    "creation_library_version": "0.1.0",
                    "created_at": "2026-01-02T03:04:05+00:00",
                    "seconds_warmup": 31.0,
                    "seconds_sampling": 42.5,
                    "gradients": 120000,
                    "members": json.dumps([chain % 2 for chain in range(chains)]),
                }
            ),
            "posterior": posterior,
            "canonical_posterior": canonical,
            "canonical_prior": canonical.map(lambda site: 0 * site + rng.normal(size=site.shape)),
            "sample_stats": xr.Dataset({k: (("chain", "draw"), v) for k, v in stats.items()}),
            "symmetry": xr.Dataset(
                {"h0": (("chain", "draw", "h0_unit"), order.to_numpy())},
                attrs={
                    "table": f"h0  S_{hidden}  permutation of 0.weight, 0.bias, 2.weight",
                    "log_order": str(float(gammaln(hidden + 1))),
                    "permutation": "sort",
                },
            ),
            "predictions": predictions,
            "predictions_ood": _elsewhere(rng, predictions),
            "predictions_corrupted": _corrupted(predictions),
            "log_likelihood": _likelihoods(rng, chains, draws),
            "predictions_constant_data": xr.Dataset({"y": ("test", y)}),
            "point_estimate": point,
        }
    )


def _predictions(
    rng: np.random.Generator, likelihood: str, chains: int, draws: int, classes: int, tests: int
) -> tuple[xr.Dataset, Array, xr.Dataset]:
    shape = (chains, draws, tests)
    attrs = {"likelihood": likelihood}
    sample = ("chain", "draw", "test")
    if likelihood == "continuous":
        centre = rng.normal(size=tests)
        y = centre + 0.5 * rng.normal(size=tests)
        mean = centre + 0.1 * autoregressive(rng, shape, 0.4)
        group = {
            "mean": (sample, mean),
            "log_predictive": (sample, norm.logpdf(y, mean, 0.5)),
            "cdf": (sample, norm.cdf(y, mean, 0.5)),
            "sd": (sample, np.full(shape, 0.5)),
        }
        fit = centre + 0.1 * rng.normal(size=tests)
        point = {
            "mean": ("test", fit),
            "log_predictive": ("test", norm.logpdf(y, fit, 0.4)),
            "sd": ("test", np.full(tests, 0.4)),
        }
    elif likelihood == "bernoulli":
        centre = 2 * rng.normal(size=tests)
        y = (rng.random(tests) < expit(centre)).astype(float)
        mean = expit(centre + 0.3 * autoregressive(rng, shape, 0.4))
        group = {
            "mean": (sample, mean),
            "log_predictive": (sample, np.log(np.where(y == 1, mean, 1 - mean))),
        }
        fit = expit(1.3 * centre)
        point = {
            "mean": ("test", fit),
            "log_predictive": ("test", np.log(np.where(y == 1, fit, 1 - fit))),
        }
    else:
        y = rng.integers(classes, size=tests)
        centre = 2 * rng.normal(size=(tests, classes)) + 2 * np.eye(classes)[y]
        logits = centre + 0.3 * autoregressive(rng, (*shape, classes), 0.4)
        log_p = log_softmax(logits, axis=-1)
        group = {
            "mean": ((*sample, "class"), np.exp(log_p)),
            "log_predictive": (sample, log_p[..., np.arange(tests), y]),
        }
        fit = log_softmax(1.5 * centre, axis=-1)
        point = {
            "mean": (("test", "class"), np.exp(fit)),
            "log_predictive": ("test", fit[np.arange(tests), y]),
        }
    return xr.Dataset(group, attrs=attrs), y, xr.Dataset(point, attrs=attrs)


def _elsewhere(rng: np.random.Generator, predictions: xr.Dataset) -> xr.Dataset:
    """Make predictions of two splits on which the draws disagree."""
    mean = predictions["mean"]
    if "class" in mean.dims:
        values = rng.dirichlet(np.full(mean.sizes["class"], 0.5), size=mean.shape[:3])
    elif predictions.attrs["likelihood"] == "bernoulli":
        values = rng.random(mean.shape)
    else:
        values = rng.normal(size=mean.shape)
    tests = mean.sizes["test"]
    sizes = {"noise": tests // 2, "letters": tests - tests // 2}
    attrs = {**predictions.attrs, "splits": json.dumps(sizes)}
    return xr.Dataset({"mean": (mean.dims, values)}, attrs=attrs)


def _corrupted(predictions: xr.Dataset) -> xr.Dataset:
    """Blend the average predictions with guesses, more so at each of five severities."""
    mean = predictions["mean"].mean(("chain", "draw"))
    share = xr.DataArray(np.arange(1, 6) / 6, {"severity": np.arange(1, 6)}, "severity")
    guess = 1 / mean.sizes["class"] if "class" in mean.dims else 0.5
    blurred = (1 - share) * mean + share * guess
    log_predictive = predictions["log_predictive"].mean(("chain", "draw")) - share
    both = xr.Dataset({"mean": blurred, "log_predictive": log_predictive})
    graded = xr.concat(
        [both, both], xr.DataArray(["noise", "blur"], dims="corruption", name="corruption")
    )
    order = ("corruption", "severity", "test", "class")
    graded = graded.transpose(*order, missing_dims="ignore")
    return graded.assign_attrs(likelihood=predictions.attrs["likelihood"], draws=20)


def _likelihoods(rng: np.random.Generator, chains: int, draws: int) -> xr.Dataset:
    """Make log likelihoods of 25 training rows, a sample of 60."""
    rows = np.sort(rng.permutation(60)[:25])
    values = -0.5 * (1 + 0.02 * rng.normal(size=(chains, draws, 25))) ** 2
    return xr.Dataset(
        {"y": (("chain", "draw", "train"), values)}, {"train": rows}, attrs={"rows": 60}
    )


@pytest.fixture(scope="session")
def make_trace() -> Callable[..., xr.DataTree]:
    return network_trace


@pytest.fixture(scope="session")
def trace() -> xr.DataTree:
    return network_trace()


@pytest.fixture(scope="session")
def regression() -> xr.DataTree:
    return network_trace("continuous")


@pytest.fixture(scope="session")
def diagnosis(trace: xr.DataTree) -> Diagnosis:
    """Diagnose the shared trace once."""
    return diagnose(trace, max_scalars=20)


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pictures, but do not draw them: for tests of what a page says."""
    monkeypatch.setattr(
        "pyro_bnn.diagnostics.plots.style.data_uri", lambda _: "data:image/svg+xml;base64,PHN2Zy8+"
    )


@pytest.fixture(params=["categorical", "bernoulli", "continuous"])
def any_trace(request: pytest.FixtureRequest) -> xr.DataTree:
    return network_trace(request.param)
