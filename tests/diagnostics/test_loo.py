"""PSIS-LOO of a conjugate model, where leaving one out has a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from arviz_stats import loo as arviz_loo
from scipy.stats import norm

from pyro_bnn.diagnostics.draws import effective_draws
from pyro_bnn.diagnostics.loo import loo


def test_loo_of_a_normal_mean_is_exact() -> None:
    # y ~ N(theta, 1), theta ~ N(0, 100): the predictive density of each row from the others.
    rng = np.random.default_rng(0)
    n = 30
    y = rng.normal(0.5, 1, size=n)
    precision = n + 1e-2
    theta = rng.normal(y.sum() / precision, precision**-0.5, size=(4, 1000))
    values = norm.logpdf(y, theta[..., None], 1)
    trace = xr.DataTree.from_dict(
        {"log_likelihood": xr.Dataset({"y": (("chain", "draw", "row"), values)})}
    )
    found = loo(trace)
    assert found is not None
    others = (y.sum() - y) / (precision - 1)
    exact = norm.logpdf(y, others, np.sqrt(1 + 1 / (precision - 1)))
    assert found.elpd == pytest.approx(exact.sum(), abs=0.1)
    assert found.error == pytest.approx(np.sqrt(n) * exact.std(), rel=0.05)
    fitted = norm.logpdf(y, y.sum() / precision, np.sqrt(1 + 1 / precision))
    assert found.parameters == pytest.approx(fitted.sum() - exact.sum(), abs=0.1)
    assert (found.rows, found.unreliable) == (n, 0)


def test_chains_that_stand_still_are_weighed_without_a_tail() -> None:
    still = np.repeat(np.random.default_rng(0).normal(-1, 0.3, size=(4, 1, 6)), 40, axis=1)
    moving = np.random.default_rng(1).normal(-1, 0.3, size=(4, 40, 2))
    values = np.concatenate([still, moving], axis=2)

    def group(draws: np.ndarray) -> xr.DataTree:
        likelihood = xr.Dataset({"y": (("chain", "draw", "row"), draws)})
        return xr.DataTree.from_dict({"log_likelihood": likelihood})

    found = loo(group(values))
    assert found is not None
    # Plain importance sampling: the harmonic mean of the likelihood.
    np.testing.assert_allclose(
        found.pointwise[:6], -np.log(np.exp(-still).mean(axis=(0, 1))), rtol=1e-12
    )
    mean = np.log(np.exp(still).mean(axis=(0, 1)))
    np.testing.assert_allclose(found.lost[:6], mean - found.pointwise[:6], rtol=1e-9)
    assert np.isinf(found.pareto_k[:6]).all()
    assert np.isfinite(found.pareto_k[6:]).all()
    assert found.unreliable >= 6


def test_a_draw_that_is_kept_where_the_tail_begins_is_weighed_without_it() -> None:
    rest, tail = np.linspace(-1.0, -0.2, 30), -np.linspace(1.5, 1.2, 6)
    values = np.concatenate([rest, np.full(4, -1.1), tail]).reshape(4, 10, 1)
    likelihood = xr.Dataset({"y": (("chain", "draw", "row"), values)})
    found = loo(xr.DataTree.from_dict({"log_likelihood": likelihood}))
    assert found is not None
    assert found.elpd == pytest.approx(-np.log(np.exp(-values).mean()), rel=1e-12)
    assert (found.pareto_k[0], found.unreliable) == (np.inf, 1)


def test_missing_or_broken_likelihoods_give_none() -> None:
    assert loo(xr.DataTree()) is None
    values = np.full((1, 1, 3), -1.0)
    for broken in (values, np.full((2, 5, 3), np.nan)):
        group = xr.Dataset({"y": (("chain", "draw", "row"), broken)})
        assert loo(xr.DataTree.from_dict({"log_likelihood": group})) is None


def test_rows_of_one_density_and_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(-1, 0.1, size=(2, 200, 7))
    values[:, :, 3] = -0.25
    group = xr.Dataset({"y": (("chain", "draw", "row"), values)}, attrs={"rows": 50})
    trace = xr.DataTree.from_dict({"log_likelihood": group})
    found = loo(trace)
    assert found is not None
    assert (found.pointwise[3], found.lost[3], found.pareto_k[3]) == (-0.25, 0.0, -np.inf)
    assert (found.rows, found.total) == (7, 50)
    monkeypatch.setattr("pyro_bnn.diagnostics.loo._BLOCK_BYTES", 2 * 8 * 400)
    again = loo(trace)
    assert again is not None
    np.testing.assert_array_equal(again.pointwise, found.pointwise)


def test_loo_equals_arviz() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(-1, 0.5, size=(4, 250, 20))
    group = xr.Dataset({"y": (("chain", "draw", "row"), values)})
    trace = xr.DataTree.from_dict({"log_likelihood": group})
    found = loo(trace)
    share = effective_draws(group) / 1000
    theirs = arviz_loo(trace, pointwise=True, reff=share)
    assert found is not None
    np.testing.assert_allclose(found.pareto_k, theirs.pareto_k.to_numpy(), atol=1e-10)
    assert found.elpd == pytest.approx(float(theirs.elpd), abs=1e-8)
    # ArviZ's own error divides by n in some versions and by n - 1 in others.
    by_rows = theirs.elpd_i.to_numpy()
    assert found.error == pytest.approx(float(np.sqrt(len(by_rows) * by_rows.var())), abs=1e-8)
    assert found.parameters == pytest.approx(float(theirs.p), abs=1e-8)


def test_rows_that_are_certain_have_no_say_in_the_effective_draws() -> None:
    # A network is certain of most training rows: in single precision their density is one.
    rng = np.random.default_rng(3)
    values = np.zeros((4, 300, 24))
    values[..., ::4] = rng.normal(-1, 0.1, size=(4, 300, 6))
    group = xr.Dataset({"y": (("chain", "draw", "row"), values)})
    assert effective_draws(group) > 900
    values[2] = values[2, :1]
    assert 0.6 * 1200 < effective_draws(group) < 0.8 * 1200
    assert effective_draws(xr.zeros_like(group)) == 4
