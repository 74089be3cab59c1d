"""Reductions cut into tasks give what they give in one piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from pyro_bnn.diagnostics import spread
from pyro_bnn.diagnostics.diversity import diversity
from pyro_bnn.diagnostics.quality.distances import Distances
from pyro_bnn.diagnostics.spread import distances_in_tasks, diversity_in_tasks
from pyro_bnn.errors import UserError
from pyro_bnn.trace import CollectionWriter, write_trace


def shuffled(function, tasks):
    """Compute the last task first, as a cluster may, and yield in order."""
    results = [function(task) for task in reversed(list(tasks))]
    return reversed(results)


@pytest.mark.parametrize("classes", [3, None])
def test_pairs_of_members(tmp_path, monkeypatch, classes):
    monkeypatch.setattr(spread, "TASK_INPUTS", 7)
    rng = np.random.default_rng(0)
    shape = (4, 3, 25) if classes is None else (4, 3, 25, classes)
    mean = rng.random(shape)
    if classes:
        mean /= mean.sum(-1, keepdims=True)
    mean[1, 2, 5] = np.nan
    dims = ("chain", "draw", "test", "class")[: mean.ndim]
    kind = "categorical" if classes else "continuous"
    data = xr.Dataset({"mean": (dims, mean)}, attrs={"likelihood": kind})
    trace = xr.DataTree.from_dict({"predictions": data})
    write_trace(trace, tmp_path / "trace.nc")
    whole = diversity(trace, threads=1)
    for mapped in (map, shuffled):
        found = diversity_in_tasks(tmp_path / "trace.nc", mapped=mapped)
        assert (found.members, found.inputs) == (11, 25)
        assert found.distances.keys() == whole.distances.keys()
        for name, values in whole.distances.items():
            np.testing.assert_allclose(found.distances[name], values, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(found.same_chain, whole.same_chain)
    assert diversity_in_tasks(tmp_path / "trace.nc", "predictions_ood") is None


def test_distances_of_collections(tmp_path):
    rng = np.random.default_rng(1)
    weights = {}
    for which, count in (("a", 5), ("b", 4)):
        out = CollectionWriter(tmp_path / which, "w")
        values = rng.normal(size=(count, 3 * 4 + 2)).astype(np.float32)
        for number, row in enumerate(values):
            out.append({"w": row[:12].reshape(3, 4), "v": row[12:]}, name=f"{number}")
        weights[which] = torch.from_numpy(values)
    expected = Distances.of(weights["a"], weights["b"])
    for mapped in (map, shuffled):
        found = distances_in_tasks(tmp_path / "a", tmp_path / "b", mapped=mapped)
        torch.testing.assert_close(found.l1, expected.l1)
        torch.testing.assert_close(found.squared, expected.squared)
        assert found.n == 5
    with pytest.raises(UserError, match="has no group 'canonical_posterior'"):
        distances_in_tasks(tmp_path / "a", tmp_path / "b", "canonical_posterior")
