"""The line between two modes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pyro_bnn.diagnostics.barrier import along, barrier, mode_lines, null_rises
from pyro_bnn.diagnostics.plots.line import plot_lines
from pyro_bnn.diagnostics.report.orbits import quotient_pictures


def test_barrier_of_a_double_well_is_its_closed_form() -> None:
    # (x^2 - 1)^2 + x / 2 between the wells at -1 and 1: the chord is x / 2, the rise (x^2 - 1)^2.
    def evaluate(values):
        x = values["x"][:, 0]
        loss = (x**2 - 1) ** 2 + x / 2
        return loss, -10 * loss

    line = along({"x": np.array([-1.0])}, {"x": np.array([1.0])}, evaluate, points=41)
    assert line.barrier == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(line.log_density, -10 * line.loss)
    assert (line.at[0], line.at[-1], len(line.at)) == (0.0, 1.0, 41)


def test_a_straight_or_sagging_loss_has_no_barrier() -> None:
    at = np.linspace(0, 1, 11)
    assert barrier(at, 3 - 2 * at) == pytest.approx(0.0, abs=1e-12)
    assert barrier(at, at**2) == 0.0


def test_points_lie_on_the_line_in_every_site() -> None:
    rng = np.random.default_rng(0)
    first, last = ({"a": rng.normal(size=(2, 3)), "b": rng.normal(size=())} for _ in range(2))
    seen = {}
    along(first, last, lambda values: (seen.update(values), (np.zeros(5), np.zeros(5)))[1], 5)
    for name in first:
        np.testing.assert_allclose(seen[name][1], 0.75 * first[name] + 0.25 * last[name])


def test_lines_of_a_trace_and_their_picture() -> None:
    at = np.linspace(0, 1, 5)
    hill = np.sin(np.pi * at)
    group = xr.Dataset(
        {
            "loss": (("space", "at"), [hill, 0.1 * hill]),
            "log_density": (("space", "at"), [-hill, -0.1 * hill]),
        },
        {"space": ["weight", "canonical"], "at": at},
    )
    found = mode_lines(xr.DataTree.from_dict({"mode_line": group}))
    assert [one.barrier for one in found.values()] == pytest.approx([1.0, 0.1])
    above, below = plot_lines(found).axes
    assert len(above.lines) == len(below.lines) == 2
    assert len({line.get_linestyle() for line in above.lines}) == 2
    assert mode_lines(xr.DataTree()) == {}
    broken = group.where(group["at"] < 1)
    assert mode_lines(xr.DataTree.from_dict({"mode_line": broken})) == {}


@pytest.mark.usefixtures("_undrawn")
def test_the_control_stands_beside_the_line() -> None:
    at = np.linspace(0, 1, 5)
    hill = np.sin(np.pi * at)
    group = xr.Dataset(
        {
            "loss": (("space", "at"), [hill, 0.1 * hill]),
            "log_density": (("space", "at"), [-hill, -0.1 * hill]),
            "null_loss": (
                ("space", "pair", "at"),
                [[-4 * hill, -5 * hill, np.nan * hill], [-3 * hill, -2 * hill, hill]],
            ),
        },
        {"space": ["weight", "canonical"], "at": at},
    )
    trace = xr.DataTree.from_dict({"mode_line": group})
    found = null_rises(trace)
    np.testing.assert_allclose(found["weight"], [-4, -5])
    np.testing.assert_allclose(found["canonical"], [-3, -2])
    (picture,) = quotient_pictures(trace)
    assert "by 1 as sampled and 0.1 canonical" in picture.caption
    assert "by -4.5 as sampled and -2.5 canonical (medians of 2)" in picture.caption
    assert null_rises(xr.DataTree.from_dict({"mode_line": group.drop_vars("null_loss")})) == {}
