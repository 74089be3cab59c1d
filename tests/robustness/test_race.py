"""Two runs that want one directory, and clocks that jump."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_bnn.infer import HMC, MCMC
from pyro_bnn.trace import locked


def test_the_second_run_is_told_who_has_the_directory(
    host, brief, model, whole, groups, assert_same, tmp_path
):
    out = tmp_path / "run"
    first = host.start("infer", model, *brief, "--out", out)
    while not (out / "recipe.toml").exists():
        time.sleep(0.005)
    first.kill(signal.SIGSTOP)
    for arguments in (["infer", model, *brief], ["infer", "--resume"]):
        code, second = host.run(*arguments, "--out", out)
        assert code == 2, second.text
        second.assert_one_sentence(out, f"in use by process {first.pid} on ")
    first.kill(signal.SIGCONT)
    assert first.wait() == 0, first.text
    assert_same(groups(out), groups(whole))
    assert not (out / ".lock").exists()


@pytest.mark.slow
def test_of_runs_that_start_together_one_wins(
    host, brief, model, whole, groups, assert_same, tmp_path
):
    out = tmp_path / "run"
    started = [host.start("infer", model, *brief, "--out", out) for _ in range(3)]
    codes = [run.wait() for run in started]
    assert sorted(codes) == [0, 2, 2], [run.text for run in started]
    for code, run in zip(codes, started, strict=True):
        if code:
            run.assert_one_sentence(out)
    assert_same(groups(out), groups(whole))


def test_a_lock_dies_with_its_holder(tmp_path):
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            time.sleep(60)
        os._exit(0)
    while not (tmp_path / ".lock").exists():
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path), locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / ".lock").exists()


def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert list((tmp_path / "run").iterdir()) == []


def model():
    pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def test_a_clock_that_runs_backwards(monkeypatch, tmp_path):
    now = iter(range(10**9, 0, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    mcmc = MCMC(
        HMC(model, num_steps=3), 10, warmup_steps=5, num_chains=2, run_dir=tmp_path / "run", seed=0
    )
    mcmc.run()
    assert mcmc.progress.seconds_warmup > 0
    assert mcmc.progress.seconds_sampling > 0
    assert mcmc.get_samples()["w"].shape == (20, 2)
