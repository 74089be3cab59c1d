"""What a reader is told to do follows from what is wrong with the trace, and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from pyro_bnn.diagnostics import diagnose
from pyro_bnn.diagnostics.advice import constant_prediction, next_steps
from pyro_bnn.diagnostics.report.predictions import uncertainty_notes

ROWS = 60


def trace_of(
    draws: np.ndarray, *, y: np.ndarray | None = None, sure: float = 0.9, recipe: str = ""
) -> xr.DataTree:
    """Two classes, told apart with probability `sure`; `draws` stand for the log predictive."""
    y = np.arange(ROWS) % 2 if y is None else y
    right = np.arange(ROWS) % 10 > 0
    probability = np.where((y == 1) == right, sure, 1 - sure)
    one = np.stack([1 - probability, probability], axis=-1)
    mean = np.broadcast_to(one, (*draws.shape[:2], ROWS, 2))
    groups = {
        "predictions": xr.Dataset(
            {
                "log_predictive": (("chain", "draw", "test"), draws),
                "mean": (("chain", "draw", "test", "class"), mean),
            },
            attrs={"likelihood": "categorical"},
        ),
        "predictions_constant_data": xr.Dataset({"y": ("test", y)}),
        "observed_data": xr.Dataset({"y": ("train", np.append(y, y))}),
    }
    trace = xr.DataTree.from_dict(groups)
    trace.attrs["recipe"] = recipe
    return trace


def independent(chains: int, draws: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(chains, draws, ROWS))


def advice(trace: xr.DataTree) -> list[str]:
    return next_steps(trace, diagnose(trace))


def test_a_run_that_is_in_order_asks_for_nothing():
    (sentence,) = advice(trace_of(independent(4, 1000)))
    assert sentence.startswith("Nothing here calls for another run")


def test_few_draws_ask_for_more_and_chains_that_wander_for_longer():
    (few,) = advice(trace_of(independent(4, 60)))
    assert few.startswith("For quantiles")
    wandering = trace_of(independent(4, 200).cumsum(axis=1))
    (longer,) = advice(wandering)
    # Twenty times as many draws are as much as is foretold.
    assert longer.startswith("Sample longer: some 4,000 draws a chain")
    # Members of an ensemble are not meant to agree.
    wandering.attrs["recipe"] = '[guide]\nname = "swag"\n'
    assert "Nothing" in advice(wandering)[0]


def test_chains_that_settled_apart_ask_for_more_chains():
    apart = independent(4, 500) + 5 * np.arange(4)[:, None, None]
    (sentence,) = advice(trace_of(apart))
    assert sentence.startswith("Run more chains (--chains) rather than longer ones")


def test_a_single_chain_asks_for_a_second():
    assert advice(trace_of(independent(1, 100)))[0].startswith("Run two chains or more")


@pytest.mark.parametrize(("sure", "word"), [(0.52, "wider"), (0.999, "narrower")])
def test_certainty_that_is_off_asks_for_another_prior(sure, word):
    (sentence,) = advice(trace_of(independent(4, 1000), sure=sure))
    assert sentence.startswith(f"Try a {word} prior")


def test_an_accuracy_that_the_commonest_class_reaches_is_named():
    y = (np.arange(ROWS) % 10 == 0).astype(int)
    trace = trace_of(independent(4, 1000), y=y)
    assert any(
        "no higher than that of always naming the commonest class" in s for s in advice(trace)
    )
    assert constant_prediction(trace, diagnose(trace)).endswith(
        "is right for 90\N{NO-BREAK SPACE}%."
    )


@pytest.mark.parametrize(("sd", "advised"), [(1.0, False), (0.1, True), (9.0, True)])
def test_intervals_of_a_regression(sd, advised):
    rng = np.random.default_rng(3)
    mean = rng.normal(size=200)
    y = mean + rng.normal(size=200)
    shape = (4, 1000, 200)
    draws = {
        "log_predictive": rng.normal(size=shape),
        "mean": np.broadcast_to(mean, shape),
        "cdf": np.broadcast_to(norm.cdf(y, mean, sd), shape),
    }
    trace = xr.DataTree.from_dict(
        {
            "predictions": xr.Dataset(
                {name: (("chain", "draw", "test"), value) for name, value in draws.items()},
                attrs={"likelihood": "continuous"},
            ),
            "predictions_constant_data": xr.Dataset({"y": ("test", y)}),
            "observed_data": xr.Dataset({"y": ("train", y)}),
        }
    )
    found = diagnose(trace)
    assert any("Try another likelihood" in s for s in next_steps(trace, found)) == advised
    assert constant_prediction(trace, found) == (
        f"Always predicting the mean of the training rows has an RMSE of {y.std():.4g}."
    )
    worse = trace.copy(deep=True)
    worse["predictions"]["mean"] = -3 * worse["predictions"]["mean"]
    assert any("no lower than that of always pre" in s for s in next_steps(worse, diagnose(worse)))


def test_draws_that_are_not_finite_do_not_ask_for_longer_chains():
    draws = independent(4, 1000)
    draws[2, 9, 7] = -np.inf
    (sentence,) = advice(trace_of(draws))
    assert sentence.startswith("Find out first why some draws of log_predictive[7] are not finite")


def test_inputs_of_which_a_chain_is_certain_do_not_hide_that_chains_settled_apart():
    apart = independent(4, 500) + 5 * np.arange(4)[:, None, None]
    apart[0, :, :3] = 0.0
    (sentence,) = advice(trace_of(apart))
    assert sentence.startswith("Run more chains (--chains) rather than longer ones")


def test_answers_that_are_certain_and_right_ask_for_no_other_prior():
    trace = trace_of(independent(4, 1000))
    y = trace["predictions_constant_data"]["y"].to_numpy()
    mean = trace["predictions"]["mean"]
    trace["predictions"]["mean"] = mean.copy(data=np.broadcast_to(np.eye(2)[y], mean.shape))
    (sentence,) = advice(trace)
    assert sentence.startswith("Nothing here calls for another run")


def test_the_page_and_the_terminal_fit_one_temperature(monkeypatch):
    from pyro_bnn.diagnostics import prediction

    fitted = []
    fit = prediction.temperature_scaling
    monkeypatch.setattr(
        prediction, "temperature_scaling", lambda *given: fitted.append(1) or fit(*given)
    )
    trace = trace_of(independent(4, 30))
    found = diagnose(trace)
    assert next_steps(trace, found) == next_steps(trace, found)
    assert any("temperature that fits best" in note for note in uncertainty_notes(found))
    assert len(fitted) == 1


@pytest.mark.parametrize(
    ("kernel", "setting"),
    [
        ('name = "hmc"\ntarget_accept_prob = 0.7', "kernel.target_accept_prob=0.9)"),
        ('name = "adjusted_mclmc"\ntarget_accept_prob = 0.9', "kernel.target_accept_prob=0.95)"),
        ('name = "mclmc"\nenergy_variance = 0.002', "kernel.energy_variance=0.0005)"),
        ('name = "sgld"', None),
        ('target_accept_prob = "high"', None),
    ],
)
def test_divergences_are_mended_by_a_setting_that_the_kernel_has(kernel, setting):
    trace = trace_of(np.random.default_rng(0).normal(size=(4, 100, ROWS)))
    trace.attrs["recipe"] = f"[kernel]\n{kernel}\n"
    diverging = np.zeros((4, 100), dtype=bool)
    diverging[0, :20] = True
    trace["sample_stats"] = xr.DataTree(xr.Dataset({"diverging": (("chain", "draw"), diverging)}))
    first = next_steps(trace, diagnose(trace))[0]
    assert first.startswith("Take smaller steps")
    assert "of the transitions diverged" in first
    assert (setting in first) if setting else ("--set" not in first)
