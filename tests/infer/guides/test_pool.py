"""Worker processes: what they are sent, what they answer, and how they end."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer.guides import Ensemble, PointEstimate, Training
from pyro_bnn.infer.guides.sharing import dumps
from pyro_bnn.infer.guides.training_block import Block
from pyro_bnn.infer.guides.worker import serve
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.trace import load_state

BRIEF = Training(epochs=2, batch_size=8, learning_rate=0.01)


def test_large_tensors_go_by_file(tmp_path):
    """Views of one memory share a file; what is small or has a gradient goes by the pickle."""
    data = torch.randn(2000, 200, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200_000)
    weight = torch.zeros(600, 600, requires_grad=True)
    sent = {"x": data, "some": data[5:9, ::2], "y": labels, "small": data.sum(0), "w": weight}
    pickled = dumps(sent, tmp_path)
    assert sorted(file.stat().st_size for file in tmp_path.iterdir()) == [1_600_000, 1_600_000]
    assert len(pickled) < 2_000_000  # the weight is 1.4 MB
    found = pickle.loads(pickled)
    for name, value in sent.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
        assert found[name].requires_grad == value.requires_grad
    # Nothing that a process writes reaches the others.
    found["x"].zero_()
    assert pickle.loads(pickled)["x"].equal(data)
    assert data.any()


class Refuses(PointEstimate):
    """Raises what its start says: a sentence at odd seeds, an error at even ones."""

    def gradient(self, parameters, density, indices, sources):
        if sources[0].initial_seed() % 2:
            raise UserError("this is refused")
        raise ZeroDivisionError("nobody saw this coming")


def answers(guide, density, blocks, folder):
    """Serve in this process what a pool would send to another."""
    head = pickle.dumps(sys.path) + pickle.dumps(torch.get_num_threads())
    job = dumps((guide, density, None, 10), folder)
    source = io.BytesIO(head + job + b"".join(map(pickle.dumps, blocks)))
    sink = io.BytesIO()
    serve(source, sink)
    sink.seek(0)
    return [pickle.load(sink) for _ in blocks]


def test_a_worker_answers_every_block(net, tmp_path):
    """Errors are told, and do not end it."""
    blocks = [Block([(0, 0)], [1]), Block([(1, 0)], [2]), Block([(2, 0)], [3])]
    first, second, third = answers(Refuses(net.density, BRIEF), net.density, blocks, tmp_path)
    assert first.refused == third.refused == "this is refused"
    assert first.trained is None
    assert "ZeroDivisionError: nobody saw this coming" in second.failed
    assert "test_pool.py" in second.failed
    (good,) = answers(PointEstimate(net.density, BRIEF), net.density, blocks[:1], tmp_path)
    assert good.trained.losses.shape == (1, 2)


@pytest.mark.slow
def test_what_a_worker_raises_is_raised_here(net, tmp_path):
    """A refusal as itself, anything else with the traceback of the process."""
    by_parity = {}
    for seed in range(2):
        with pytest.raises((UserError, RuntimeError)) as caught:
            Ensemble(Refuses(net.density, BRIEF), 2, workers=2, block=1).fit(
                seed=seed, run_dir=tmp_path / str(seed)
            )
        by_parity[caught.type] = str(caught.value)
    for kind, told in by_parity.items():
        if kind is UserError:
            assert told == "this is refused"
        else:
            assert told.startswith("in a worker process:\n")
            assert "nobody saw this coming" in told
    assert by_parity


@pytest.mark.slow
def test_images_reach_a_worker():
    """As many as MNIST's, 25 MB: more than a pipe holds, and more than once in the density."""
    bnn = lift(nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), Normal(scale="fan_in"))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8000, 28, 28, generator=generator)
    density = LogDensity(lambda x, y=None: categorical(bnn(x), y), x, torch.arange(8000) % 2)
    training = Training(epochs=1, batch_size=4000)
    there = Ensemble(PointEstimate(density, training), 2, workers=2).fit(seed=3)
    here = Ensemble(PointEstimate(density, training), 2).fit(seed=3)
    torch.testing.assert_close(there.state["position"], here.state["position"])


INTERRUPTED = """
import sys, time, torch
from torch import nn
from pyro_bnn import LogDensity
from pyro_bnn.infer.guides import Ensemble, PointEstimate, Training
from pyro_bnn.nn import Normal, categorical, lift
bnn = lift(nn.Linear(3, 2), Normal())
x = torch.linspace(-1, 1, 48).reshape(16, 3)
density = LogDensity(lambda x, y=None: categorical(bnn(x), y), x, torch.arange(16) % 2)
delay = float(sys.argv[1])
class Slow(PointEstimate):
    def gradient(self, parameters, density, indices, sources):
        time.sleep(delay)
        return super().gradient(parameters, density, indices, sources)
if __name__ == "__main__":
    guide = Slow(density, Training(epochs=60, batch_size=8, learning_rate=0.05))
    ensemble = Ensemble(guide, 4, workers=int(sys.argv[3]), block=2)
    ensemble.fit(seed=1, run_dir=sys.argv[2], resume=True, save_every=1)
"""


def _members(folder):
    record = json.loads(load_state(folder / "state.safetensors")[1]["fit"])
    parts = sorted(record["parts"])
    states = [load_state(folder / "members" / name)[0]["position"] for _, _, name in parts]
    return [members for members, _, _ in parts], torch.cat(states), record


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True], ids=["once", "as a terminal sends it"])
def test_an_interrupt_saves_and_resumes(tmp_path, twice):
    """Ctrl-C of a pool loses no epoch that was finished, and the end is that of one process."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED, encoding="utf-8")

    def start(delay, folder, workers, **how):
        words = [sys.executable, str(script), delay, str(tmp_path / folder), str(workers)]
        return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, **how)

    running = start("0.1", "pool", 2, start_new_session=True)
    training = tmp_path / "pool" / "training"
    deadline = time.monotonic() + 300
    while not training.is_dir() or len(list(training.glob("*.safetensors"))) < 2:
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if twice:  # to the whole group, and the pool passes it on
        os.killpg(running.pid, signal.SIGINT)
    else:
        running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=300)
    assert running.returncode != 0
    assert told.rstrip().endswith("KeyboardInterrupt"), told
    assert not (tmp_path / "pool" / "members").is_dir()
    assert len(list(training.glob("*.safetensors"))) == 2
    for folder, workers in (("pool", 2), ("alone", 1)):
        resumed = start("0", folder, workers)
        _, told = resumed.communicate(timeout=300)
        assert resumed.returncode == 0, told
    members, found, record = _members(tmp_path / "pool")
    expected_members, expected, other = _members(tmp_path / "alone")
    assert members == expected_members == [[0, 1], [2, 3]]
    assert record["gradients"] == other["gradients"]
    torch.testing.assert_close(found, expected)
    assert not list(training.iterdir())
