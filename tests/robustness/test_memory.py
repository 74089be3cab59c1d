"""Memory that runs out in one block: the block halves, with a sentence, and no number changes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_bnn import LogDensity
from pyro_bnn.diagnostics.quality import Distances, mmd
from pyro_bnn.halving import OutOfMemory
from pyro_bnn.infer.guides import Ensemble, PointEstimate, Training
from pyro_bnn.infer.predict import predict, predict_in_chunks
from pyro_bnn.nn import Normal, gaussian, lift
from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.trace import site_dataset


class Room(TorchDispatchMode):
    """An allocator that has no more than so many bytes for a tensor."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        known = {
            storage(leaf) for leaf in pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor)
        }
        for leaf in pytree.tree_leaves(found):
            if not isinstance(leaf, torch.Tensor) or storage(leaf) in known:
                continue  # a view takes nothing
            if leaf.numel() * leaf.element_size() > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return found


def storage(tensor):
    """Where the values of a tensor lie."""
    return tensor.untyped_storage().data_ptr()


@pytest.fixture
def told(caplog):
    """Return a function that lists what was said."""
    caplog.set_level(logging.WARNING, "pyro_bnn.halving")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture(scope="module")
def line():
    """Return a regression on 100 rows, and 64 draws of its 50 weights."""

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(50), 1.0).to_event(1))
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Normal(torch.tanh(x * w).sum(1), 0.5), obs=y)

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(100, 50, generator=generator), torch.randn(100, generator=generator)
    return LogDensity(model, x, y), {"w": torch.randn(64, 50, generator=generator)}, x, y


def assert_equal_predictions(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_predictions_halve_their_draws(line, told):
    expected = predict(*line)
    with Room(10 * 100 * 50 * 4):  # the inputs times the weights of ten draws
        found = predict_in_chunks(*line)
    assert_equal_predictions(found, expected)
    assert told() == [
        f"predictions: {size} draws at once do not fit into memory, going on with {size // 2}"
        for size in (64, 32, 16)
    ]


def test_predictions_halve_their_rows_where_one_draw_does_not_fit(line, told):
    density, values, x, y = line
    few = {"w": values["w"][:3]}
    with Room(30 * 50 * 4):
        found = predict_in_chunks(density, few, x, y)
    assert_equal_predictions(found, predict(density, few, x, y))
    assert [text.split(" at once")[0] for text in told()] == [
        "predictions: 3 draws",
        "predictions: 100 rows",
        "predictions: 50 rows",
    ]


def test_one_row_of_one_draw_that_does_not_fit_is_a_sentence(line):
    density, values, x, y = line
    few = density, {"w": values["w"][:2]}, x[:4], y[:4]
    with (
        Room(40),
        pytest.raises(OutOfMemory, match=r"memory ran out with rows taken one at a time"),
    ):
        predict_in_chunks(*few)


def test_other_errors_are_not_taken_for_it(line):
    density, values, x, y = line
    with pytest.raises(RuntimeError, match="size"):
        predict_in_chunks(density, values, x[:, :40], y)


def test_the_distances_and_kernels_of_mmd_halve(monkeypatch, told):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(40, 5, generator=generator).double() for _ in range(2))
    whole = Distances.of(x, y)
    expected = mmd(whole, 20, 20, torch.Generator().manual_seed(1))
    # 80 rows of 80 numbers of 8 bytes are the whole matrix, which it has to hold.
    allocate, asked = torch.cdist, []

    def cdist(rows, others, p):
        asked.append(len(rows))
        if len(rows) > 25:
            raise MemoryError
        return allocate(rows, others, p=p)

    monkeypatch.setattr(torch, "cdist", cdist)
    parts = Distances.of(x, y)
    assert asked[:4] == [80, 40, 20, 20]
    torch.testing.assert_close(parts.l1, whole.l1, rtol=0, atol=0)

    exponential = torch.exp

    def exp(values):
        if values.shape[0] > 30:
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
            )
        return exponential(values)

    monkeypatch.setattr(torch, "exp", exp)
    found = mmd(parts, 20, 20, torch.Generator().manual_seed(1))
    assert found.values == pytest.approx(expected.values, rel=1e-10, abs=1e-14)
    assert found.interval == pytest.approx(expected.interval, rel=1e-10, abs=1e-14)
    assert found.p_value == expected.p_value
    assert told() == 2 * [
        f"MMD: {size} draws at once do not fit into memory, going on with {size // 2}"
        for size in (80, 40)
    ]


@pytest.mark.parametrize("permutation", ["sort", "align"])
def test_the_quotient_halves_its_draws(permutation, told):
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
    group = discover(net, torch.zeros(2, 3))
    generator = torch.Generator().manual_seed(0)
    draws = {n: torch.randn(2, 50, *s, generator=generator) for n, s in group.shapes.items()}
    trace = xr.DataTree.from_dict({"posterior": site_dataset(draws, group.dims)})
    quotient = Quotient(group, permutation=permutation, reference="first")
    expected = quotient.apply(trace)
    with Room(2 * 20 * 6 * 6 * 8):  # the costs of twenty draws of both chains
        found = quotient.again().apply(trace)
    assert told()[0] == "quotient: 50 draws at once do not fit into memory, going on with 25"
    for name in ("canonical_posterior", "symmetry"):
        xr.testing.assert_allclose(found[name].to_dataset(), expected[name].to_dataset())


class Wide(PointEstimate):
    """Has room for two members."""

    def gradient(self, parameters, density, indices, sources):
        if len(sources) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().gradient(parameters, density, indices, sources)


class Never(PointEstimate):
    """Has room for none."""

    def gradient(self, parameters, density, indices, sources):
        raise MemoryError


@pytest.fixture(scope="module")
def small():
    """Density of a network of 13 weights."""
    x = torch.linspace(-1, 1, 24).reshape(12, 2)
    bnn = lift(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), Normal())
    return LogDensity(lambda x, y=None: gaussian(bnn(x), y, noise=0.3), x, x[:, 0])


TRAINING = Training(epochs=3, batch_size=4, learning_rate=0.01)


def test_an_ensemble_trains_fewer_members_at_once(small, told, tmp_path):
    expected = Ensemble(PointEstimate(small, TRAINING), 7).fit(seed=0)
    found = Ensemble(Wide(small, TRAINING), 7).fit(seed=0, run_dir=tmp_path)
    assert found.members == list(range(7))
    assert found.seeds == expected.seeds
    assert found.batching == "one member at a time: 3 did not fit into memory"
    torch.testing.assert_close(found.state["position"], expected.state["position"])
    assert told() == [
        "training: 7 members at once do not fit into memory, going on with 3",
        "training: 3 members at once do not fit into memory, going on with 1",
    ]


def test_members_that_are_measured_first_are_halved_too(told):
    bnn = lift(nn.Sequential(nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 1)), Normal())
    x = torch.linspace(-1, 1, 48).reshape(12, 1, 4)
    images = LogDensity(lambda x, y=None: gaussian(bnn(x), y, noise=0.3), x, x[:, 0, 0])
    expected = Ensemble(PointEstimate(images, TRAINING), 20).fit(seed=0)
    found = Ensemble(Wide(images, TRAINING), 20).fit(seed=0)
    assert told() == [
        f"training: {size} members at once do not fit into memory, going on with {size // 2}"
        for size in (8, 4)
    ]
    assert "ms among 2, " in found.batching
    assert found.batching.endswith("and 8 did not fit into memory")
    torch.testing.assert_close(found.state["position"], expected.state["position"])
    with pytest.raises(OutOfMemory, match="training: memory ran out with members taken one"):
        Ensemble(Never(images, TRAINING), 2).fit(seed=0)


def test_a_member_that_does_not_fit_alone_is_a_sentence(small):
    with pytest.raises(OutOfMemory, match="training: memory ran out with members taken one"):
        Ensemble(Never(small, TRAINING), 2).fit(seed=0)


@pytest.mark.slow
def test_processes_train_fewer_members_at_once(small):
    expected = Ensemble(PointEstimate(small, TRAINING), 8).fit(seed=0)
    found = Ensemble(Wide(small, TRAINING), 8, workers=2).fit(seed=0)
    assert found.members == list(range(8))
    assert "4 did not fit into memory" in found.batching
    torch.testing.assert_close(found.state["position"], expected.state["position"])


LIMITED = """
import json, resource, sys
import torch
from torch import nn
from pyro_bnn import LogDensity
from pyro_bnn.infer.predict import predict, predict_in_chunks
from pyro_bnn.nn import Normal, gaussian, lift

torch.set_num_threads(1)
net = nn.Sequential(nn.Linear(2, 256), nn.Tanh(), nn.Linear(256, 1)).double()
bnn = lift(net, Normal(scale="fan_in"))
x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)).double()
density = LogDensity(lambda x, y=None: gaussian(bnn(x), y, noise=0.3), x, x[:, 0])
generator = torch.Generator().manual_seed(1)
values = {
    n: torch.randn(256, *s.shape, generator=generator).double() for n, s in density.sites.items()
}
predict(density, {n: v[:1] for n, v in values.items()}, x, x[:, 0])  # what is loaded on the way
expected = [
    predict(density, {n: v[[k]] for n, v in values.items()}, x, x[:, 0]).mean for k in (0, 255)
]

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
room = int(status["VmData"].split()[0]) * 1024 + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (room, room))
mean = predict_in_chunks(density, values, x, x[:, 0]).mean
print(json.dumps([float((mean[k] - e[0]).abs().max()) for k, e in zip((0, -1), expected)]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's /proc")
def test_a_process_with_little_memory_predicts_in_smaller_chunks():
    """Activations of all draws weigh 210 MB, and the system gives the process 100."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "100"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)) < 1e-10
    assert "predictions: 256 draws at once do not fit into memory" in done.stderr
    assert "Traceback" not in done.stderr
