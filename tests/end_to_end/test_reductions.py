"""The heavy reductions give the same bits in one process, in threads and on a cluster."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from pyro_bnn.diagnostics import posterior_quality
from pyro_bnn.diagnostics.diversity import TASK_INPUTS, diversity
from pyro_bnn.diagnostics.quality import gap
from pyro_bnn.infer.distributed import Scheduler
from pyro_bnn.symmetry import Quotient, discover, labelled
from pyro_bnn.trace import open_trace, site_dataset, write_trace

CHAINS, DRAWS, INPUTS = 4, 30, 2 * TASK_INPUTS + 100


def travelling(function, tasks):
    """Send each task through pickle, as a cluster does, and compute the last one first."""
    sent = [pickle.dumps((function, task)) for task in tasks]
    results = []
    for parcel in reversed(sent):
        there, task = pickle.loads(parcel)
        results.append(pickle.loads(pickle.dumps(there(task))))
    return reversed(results)


@pytest.fixture(scope="module")
def net():
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))


@pytest.fixture
def traces(net, tmp_path):
    """Write two traces of one network, with a NaN and predictions."""
    dims = discover(net, torch.zeros(2, 6)).dims
    paths = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        draws = {
            name: (1 + seed * 0.2) * rng.normal(size=(CHAINS, DRAWS, *p.shape)).astype(np.float32)
            for name, p in net.named_parameters()
        }
        draws["0.weight"][1, 2, 0, 0] = np.nan
        mean = rng.dirichlet(np.ones(3), size=(CHAINS, DRAWS, INPUTS)).astype(np.float32)
        predictions = xr.Dataset(
            {"mean": (("chain", "draw", "test", "class"), mean)},
            attrs={"likelihood": "categorical"},
        )
        tree = {"posterior": site_dataset(draws, dims), "predictions": predictions}
        paths.append(tmp_path / f"{seed}.nc")
        write_trace(xr.DataTree.from_dict(tree), paths[-1])
    return paths


def everything(traces, net, mapped):
    """Put copies of the traces through every reduction; return all numbers by name."""
    found = {}
    copies = [shutil.copy(path, path.with_suffix(".copy.nc")) for path in traces]
    group = discover(net, torch.zeros(2, 6))
    for number, path in enumerate(copies):
        permutation = ("sort", "align")[number]
        Quotient(group, permutation=permutation).apply(path, mapped=mapped)
        with open_trace(path) as tree:
            for name in ("canonical_posterior", "symmetry"):
                for key, values in tree[name].data_vars.items():
                    found[f"{name} {number} {key}"] = values.to_numpy()
            attrs = tree["symmetry"].attrs
            found[f"mass {number}"] = np.array([attrs["mass_before"], attrs["mass_after"]])
            pairs = diversity(tree, mapped=mapped)
            found |= {f"pairs {number} {key}": one for key, one in pairs.distances.items()}
    for chunks in ("auto", None):
        with open_trace(copies[0], chunks) as one, open_trace(copies[1], chunks) as other:
            quality = posterior_quality(one, other, permutations=20, resamples=20, mapped=mapped)
        for each in quality.weights:
            numbers = [*each.mmd.values, *each.mmd.interval, each.mmd.p_value, each.wasserstein]
            found[f"{chunks} {each.space} {each.layer}"] = np.array(numbers)
    return found


@pytest.fixture
def small_tasks(monkeypatch):
    """Cut into several tasks what is small."""
    monkeypatch.setattr(gap, "TASK_WEIGHTS", 50)
    monkeypatch.setattr(labelled, "BLOCK_BYTES", 2**15)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name, strict=True)


def test_travel_changes_no_bit(traces, net, small_tasks, two_threads):
    expected = everything(traces, net, map)
    assert len([name for name in expected if name.startswith("auto canonical")]) == 3
    assert np.isfinite(expected["auto canonical all"]).all()
    assert_equal(everything(traces, net, travelling), expected)


@pytest.mark.slow
def test_two_workers_change_no_bit(traces, net, small_tasks, two_threads):
    expected = everything(traces, net, map)
    with Scheduler("local", workers=2, dashboard=False) as scheduler:
        assert_equal(everything(traces, net, scheduler.map), expected)


@pytest.mark.slow
def test_commands_hand_reductions_to_workers(infer, command, script, tmp_path):
    runs = []
    for scheduler in ("none", "local"):
        out = tmp_path / scheduler
        where = [f"--scheduler={scheduler}", *(["--workers=2"] if scheduler == "local" else [])]
        words = ["--chains=4", "--set=run.block=2", "--set=run.threads=1", f"--out={out}"]
        done = infer(script(), *words, *where, "--no-report")
        assert done.code == 0, done.err
        done = command("quotient", out, "--permutation=align", *where)
        assert done.code == 0, done.err
        done = command(
            "compare", out, "--reference", tmp_path / "none", *where, "--out", out / "c.csv"
        )
        assert done.code == 0, done.err
        runs.append(out)
    with open_trace(runs[0]) as here, open_trace(runs[1]) as there:
        for group in ("posterior", "canonical_posterior", "symmetry"):
            for name, values in here[group].data_vars.items():
                np.testing.assert_array_equal(there[group][name], values, strict=True)
