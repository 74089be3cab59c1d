"""Many members: blocks streamed to the trace, worker processes, and the choice of a block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer.guides import Ensemble, PointEstimate, Training, batching
from pyro_bnn.infer.guides.batching import choose_batching
from pyro_bnn.infer.guides.fitting import Fitting
from pyro_bnn.infer.guides.run import GuideRun
from pyro_bnn.infer.guides.seeds import member_seeds
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.trace import assemble, load_state, open_trace, segment_paths

BRIEF = Training(epochs=2, batch_size=8, learning_rate=0.01)


class Fragile(PointEstimate):
    """Fails where its start says so: at odd seeds."""

    def gradient(self, parameters, density, indices, sources):
        value, gradients = super().gradient(parameters, density, indices, sources)
        bad = torch.tensor([source.initial_seed() % 2 == 1 for source in sources])
        return value.where(~bad, torch.nan), gradients


def test_blocks_of_members_become_one_trace(net, tmp_path):
    """With retries, so that members come out of order, and two segments a block."""

    def run(folder, block):
        guide = Ensemble(Fragile(net.density, BRIEF), 7, block=block, retries=20)
        made = GuideRun(guide, 3, tmp_path / folder, seed=1, segment_draws=2)
        made.run()
        return made

    whole, parts = run("whole", 7), run("parts", 2)
    seeds = member_seeds(1, 7)
    assert any(seed % 2 for seed in seeds)
    assert whole.guide.members == parts.guide.members == list(range(7))
    assert whole.guide.seeds == parts.guide.seeds
    assert len(segment_paths(tmp_path / "parts")) > len(segment_paths(tmp_path / "whole")) / 2 > 0
    # Nothing but files holds the members.
    assert not parts.guide._state
    assert not (tmp_path / "parts" / "training").exists() or not list(
        (tmp_path / "parts" / "training").iterdir()
    )
    alone = Ensemble(Fragile(net.density, BRIEF), 7, retries=20).fit(seed=1)
    expected = net.density.constrain(alone.state["position"])["0.weight"]
    for folder in ("whole", "parts"):
        with open_trace(tmp_path / folder) as segments:
            before = segments["posterior"]["0.weight"].to_numpy()
        assemble(tmp_path / folder, {})
        with open_trace(tmp_path / folder) as trace:
            found = trace["posterior"]["0.weight"]
            assert found.dims[:2] == ("chain", "draw")
            assert found["chain"].to_numpy().tolist() == list(range(7))
            assert found["draw"].to_numpy().tolist() == [0, 1, 2]
            torch.testing.assert_close(torch.from_numpy(found.to_numpy()[:, 2]), expected)
            assert (found.to_numpy() == before).all()
            assert trace["sample_stats"]["lp"].shape == (7, 3)


@pytest.mark.slow
def test_processes_train_the_same_members(net, tmp_path):
    training = Training(epochs=3, batch_size=8, learning_rate=0.01)
    here = Ensemble(PointEstimate(net.density, training), 5).fit(seed=4)
    assert "5 members at once" in here.batching
    there = Ensemble(PointEstimate(net.density, training), 5, workers=2)
    there.fit(seed=4, run_dir=tmp_path)
    assert there.seeds == here.seeds
    assert "in each of 2 processes" in there.batching
    torch.testing.assert_close(there.state["position"], here.state["position"])
    assert len(list((tmp_path / "members").iterdir())) == 2


class Deadly(PointEstimate):
    """Ends its process."""

    def gradient(self, parameters, density, indices, sources):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_dies_is_told(net):
    ensemble = Ensemble(Deadly(net.density, BRIEF), 2, workers=2)
    with pytest.raises(UserError, match="ended with code -9: it may have run out of memory"):
        ensemble.fit(seed=0)


@pytest.fixture(scope="module")
def images():
    """Density of a convolutional network."""
    bnn = lift(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), Normal())
    x = torch.randn(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return LogDensity(lambda x, y=None: categorical(bnn(x), y), x, torch.arange(16) % 2)


def test_convolutions_are_measured(images, net, monkeypatch):
    seconds = {1: 0.004, 8: 0.016}
    monkeypatch.setattr(batching, "_seconds", lambda guide, density, count: seconds[count])
    guide = Ensemble(PointEstimate(images, BRIEF), 20)
    block, reason = choose_batching(guide, images)
    assert block == 20
    assert reason == "a step of a member took 2.00 ms among 8, 4.00 ms alone"
    seconds[8] = 0.04
    assert choose_batching(guide, images).block == 1
    # No convolution, nothing to measure.
    seconds.clear()
    assert choose_batching(Ensemble(PointEstimate(net.density, BRIEF), 20), net.density).block == 20
    asked = Ensemble(PointEstimate(images, BRIEF), 20, block=3)
    assert choose_batching(asked, images) == (3, "as asked for")


def test_a_step_is_measured_as_it_is_trained(images):
    guide = Ensemble(PointEstimate(images, BRIEF), 4)
    assert batching._seconds(guide, images, 2) > 0
    found = Fitting(guide, images, 0, None, 10).run(resume=False)
    assert "a step of a member took" in found.batching


def test_no_more_rows_at_once_than_a_step_has(images, tmp_path, monkeypatch):
    """Neither where members start nor where their densities are recorded."""
    for name in ("_MANY", "_FEW"):
        monkeypatch.setattr(f"pyro_bnn.prototype.{name}", 8)
    seen = []

    def model(x, y=None):
        seen.append(len(x))
        return images.model(x, y)

    density = LogDensity(model, *images.args)
    seen.clear()
    made = GuideRun(Ensemble(PointEstimate(density, BRIEF), 2, block=2), 2, tmp_path, seed=0)
    made.run()
    assert seen
    assert max(seen) == 8
    with open_trace(tmp_path) as trace:
        found = torch.from_numpy(trace["sample_stats"]["lp"].to_numpy())
    (file,) = (tmp_path / "members").iterdir()
    whole = -images.potential(load_state(file)[0]["position"])
    torch.testing.assert_close(found, whole[:, None].expand(-1, 2))


SCRIPT = """
import sys, torch
from torch import nn
from pyro_bnn import LogDensity
from pyro_bnn.infer.guides import Ensemble, PointEstimate, Training
from pyro_bnn.infer.guides.run import GuideRun
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.trace import assemble
members, folder = int(sys.argv[1]), sys.argv[2]
bnn = lift(nn.Linear(2000, 10), Normal(scale="fan_in"))
x = torch.randn(8, 2000)
density = LogDensity(lambda x, y=None: categorical(bnn(x), y), x, torch.arange(8))
guide = Ensemble(PointEstimate(density, Training(epochs=1)), members, block=32)
GuideRun(guide, 1, folder).run()
assemble(folder, {})
# Not getrusage, whose maximum begins with that of the process that started this one.
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_members(tmp_path):
    def peak(members):
        command = [sys.executable, "-c", SCRIPT, str(members), str(tmp_path / str(members))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout)

    # 1,920 more members are 154 MB of states, and as much of draws.
    assert peak(1984) - peak(64) < 60
