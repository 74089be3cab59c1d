"""Pictures of weights: what is drawn is what was given."""

from __future__ import annotations

import functools

import numpy as np

from pyro_bnn.diagnostics.blocks import gather
from pyro_bnn.diagnostics.plots.bivariate import plot_bivariate
from pyro_bnn.diagnostics.plots.model import plot_pareto_k, plot_weights
from pyro_bnn.diagnostics.plots.pairs import plot_pairs
from pyro_bnn.diagnostics.plots.rhat import plot_rhat_overlaid
from pyro_bnn.diagnostics.plots.uncertainty import plot_intervals
from pyro_bnn.diagnostics.report import orbits


def test_bivariate_counts_every_draw_inside_of_its_axes() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(500, 2))
    sorted_ = np.sort(raw, axis=1)
    left, right = plot_bivariate({("a", "b"): (raw, sorted_)}).axes
    for axes, values in ((left, raw), (right, sorted_)):
        (low_x, high_x), (low_y, high_y) = axes.get_xlim(), axes.get_ylim()
        x, y = values.T
        inside = (x >= low_x) & (x <= high_x) & (y >= low_y) & (y <= high_y)
        assert 480 < axes.collections[0].get_array().sum() <= inside.sum()
    assert left.get_xlim() == right.get_xlim()
    # Sorted pairs lie above the diagonal: so do their hexagons.
    offsets = right.collections[0].get_offsets()
    assert (offsets[:, 1] > offsets[:, 0] - 0.5).all()


def test_pairs_have_a_panel_each_and_leave_broken_draws_out() -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 40))
    values[1, 0, 5] = np.nan
    axes = plot_pairs(["a", "b", "c"], values).axes
    shown = [one for one in axes if one.get_visible()]
    assert len(shown) == 6
    scatters = [one for one in shown if one.collections]
    assert [len(one.collections[0].get_offsets()) for one in scatters] == [79, 79, 79]


def test_overlaid_rhats_are_shares_above() -> None:
    rhat = {"weight": np.array([1.2, 1.1, np.nan, 2.0]), "function": np.array([1.001, 1.01])}
    (axes,) = plot_rhat_overlaid(rhat).axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["weights"].get_ydata(), [1, 2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(lines["functions"].get_ydata(), [1, 0.5, 0])
    assert len({str(line.get_linestyle()) for line in lines.values()}) > 1


def test_pareto_k_counts_rows_and_weights_are_sorted() -> None:
    (axes,) = plot_pareto_k(np.array([0.1, 0.9, -np.inf, 0.8]), 0.7).axes
    assert axes.get_title(loc="right") == "2 of 4 rows above 0.7"
    (axes,) = plot_weights(np.array([0.2, 0.5, 0.3])).axes
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0.3, 0.2]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "0"]


def test_pairs_of_weights_of_many_draws_stay_pairs(make_trace, monkeypatch) -> None:
    trace = make_trace(chains=2, draws=50)
    whole = orbits._columns(trace["posterior"].to_dataset(), "0.weight", [0, 5])
    # As of three million draws, of which one weight at a time fits.
    monkeypatch.setattr(orbits, "gather", functools.partial(gather, gather_bytes=1))
    parts = orbits._columns(trace["posterior"].to_dataset(), "0.weight", [0, 5])
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_array_equal(
        whole[:, 1], trace["posterior"]["0.weight"].to_numpy()[:, :, 1, 0].ravel()
    )


def test_intervals_of_many_rows_are_those_of_some() -> None:
    y = np.random.default_rng(0).normal(size=5_000)
    (axes,) = plot_intervals(y, np.full(5_000, 0.1), y).axes
    bars, dots = axes.collections
    assert len(bars.get_segments()) == len(dots.get_offsets()) == 1_667
    assert axes.lines[0].get_xdata().tolist() == [y.min(), y.max()]
    several = np.stack([y[:7], y[:7] + 1], axis=1)
    (axes,) = plot_intervals(several, 0 * several, several).axes
    assert len(axes.collections[1].get_offsets()) == 14
