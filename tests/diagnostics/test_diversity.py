"""Pairwise diversity against a float64 loop, and its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist
from scipy.stats import entropy

from pyro_bnn.diagnostics.diversity import diversity, pairwise
from pyro_bnn.diagnostics.plots.diversity import plot_diversity

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.full(7, 0.3), size=(21, 90)).astype(np.float32)


def loop(p: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the three distances pair by pair in float64."""
    wide = p.astype(np.float64)
    found: dict[str, list[float]] = {"mutual_information": [], "disagreement": [], "distance": []}
    for i in range(len(wide)):
        for j in range(i + 1, len(wide)):
            a, b = wide[i], wide[j]
            mixed = entropy((a + b) / 2, axis=1) - (entropy(a, axis=1) + entropy(b, axis=1)) / 2
            found["mutual_information"].append(mixed.mean())
            found["disagreement"].append(np.mean(a.argmax(1) != b.argmax(1)))
            found["distance"].append(np.mean(np.sum((a - b) ** 2, axis=1)))
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("step", [90, 17, 1])
def test_pairs_equal_a_loop_however_inputs_are_blocked(step: int) -> None:
    blocks = [P[:, start : start + step] for start in range(0, 90, step)]
    seen = []
    found = pairwise(blocks, True, lambda done, total: seen.append((done, total)), 90)
    for name, expected in loop(P).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert seen[-1] == (90, 90)
    assert len(seen) == len(blocks)


def test_rare_classes_and_near_copies_are_told_to_rounding() -> None:
    # Of a thousand classes nearly all are rarer than one in a million, and members nearly agree.
    logits = RNG.normal(size=(6, 20, 1000)) * 0.1 + 12 * RNG.normal(size=(1, 20, 1000))
    rare = np.exp(logits - logits.max(axis=2, keepdims=True))
    rare = (rare / rare.sum(axis=2, keepdims=True)).astype(np.float32)
    found = pairwise([rare], True)
    np.testing.assert_allclose(
        found["mutual_information"], loop(rare)["mutual_information"], atol=1e-6
    )
    same = pairwise([np.concatenate([rare[:1], rare[:1]])], True)
    assert same["mutual_information"][0] < 1e-7
    assert same["disagreement"][0] == 0


def test_certain_members_are_apart_by_log_two_or_not_at_all() -> None:
    certain = np.eye(3, dtype=np.float32)[np.array([[0, 1], [1, 2], [0, 1]])]
    found = pairwise([certain], True)
    np.testing.assert_allclose(
        found["mutual_information"], [math.log(2), 0, math.log(2)], atol=1e-6
    )
    assert found["disagreement"].tolist() == [1, 0, 1]
    assert found["distance"].tolist() == [2, 0, 2]


def test_wide_predictions_go_through_in_columns() -> None:
    wide = RNG.dirichlet(np.ones(900), size=(3, 11)).astype(np.float32)
    found = pairwise([wide], True)
    np.testing.assert_allclose(
        found["mutual_information"], loop(wide)["mutual_information"], atol=1e-6
    )


def test_distances_do_not_drown_in_the_level_of_the_predictions() -> None:
    years = (2000 + 0.1 * RNG.normal(size=(9, 300, 1))).astype(np.float32)
    expected = pdist(years[..., 0].astype(np.float64), "sqeuclidean") / 300
    np.testing.assert_allclose(pairwise([years], False)["distance"], expected, rtol=1e-3)


def test_face_of_each_likelihood(any_trace: xr.DataTree) -> None:
    found = diversity(any_trace)
    mean = any_trace["predictions"]["mean"].to_numpy()
    flat = mean.reshape(400, 40, -1)
    assert (found.members, found.inputs) == (400, 40)
    assert len(found.distance) == 400 * 399 // 2
    assert int(found.same_chain.sum()) == 4 * (100 * 99 // 2)
    kind = any_trace["predictions"].attrs["likelihood"]
    scale = 2 if kind == "bernoulli" else 1
    expected = scale * pdist(flat.reshape(400, -1), "sqeuclidean") / 40
    np.testing.assert_allclose(found.distance, expected, atol=1e-5)
    assert (found.mutual_information is None) == (kind == "continuous")


def test_members_are_spaced_and_broken_ones_left_out(trace: xr.DataTree) -> None:
    broken = trace.copy(deep=True)
    broken["predictions"]["mean"][2, :, 3, 0] = np.nan
    found = diversity(broken, max_members=30)
    assert found.members == 30
    assert found.same_chain.sum() == 3 * (10 * 9 // 2)
    assert np.isfinite(found.mutual_information).all()
    assert diversity(trace.isel(chain=[0], draw=[0])) is None
    assert diversity(xr.DataTree()) is None


def test_order_of_units_does_not_enter(trace: xr.DataTree) -> None:
    moved = trace.copy()
    moved["posterior"] = xr.DataTree(trace["posterior"].to_dataset().isel(h0=[2, 0, 3, 1]))
    first, second = diversity(trace, max_members=9), diversity(moved, max_members=9)
    np.testing.assert_array_equal(first.distance, second.distance)


def test_picture_has_a_row_a_distance(trace: xr.DataTree) -> None:
    found = diversity(trace, max_members=20)
    picture = plot_diversity(
        {"nats": found.mutual_information, "share": found.disagreement}, found.same_chain
    )
    assert [axes.get_xlabel() for axes in picture.axes] == ["nats", "share"]
