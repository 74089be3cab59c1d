"""``kill -9`` at random moments of sampling, then ``--resume``: the same draws, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pyro_bnn.trace import open_trace, segment_paths

ARGUMENTS = [
    "models/diabetes_mlp.py",
    "--chains=4",
    "--warmup=20",
    "--draws=280",
    "--recipe=hmc.toml",
    "--set=kernel.num_steps=6",
    "--set=run.segment_draws=4",
    "--set=run.threads=1",
    "--set=quotient.enabled=false",
    "--no-report",
]

# Imports once, also what a run asks for on its way, then becomes `python -m pyro_bnn.infer` in a
# child at each line that it reads: importing torch and Pyro takes longer than all that a child
# does.
HOST = """
import os, runpy, shlex, sys
import pyro_bnn.diagnostics, pyro_bnn.infer.cli.choosing, pyro_bnn.infer.cli.running
import pyro_bnn.infer.cli.app
import dask.array, sklearn.datasets, torch._dynamo
sys.modules.pop("pyro_bnn.infer.__main__", None)
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv = ["pyro_bnn.infer", *shlex.split(line)]
        sys.stdout = open(os.devnull, "w")
        runpy.run_module("pyro_bnn.infer", run_name="__main__", alter_sys=True)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Host:
    """Starts runs and tells how they ended."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.read() == "ready"

    def read(self):
        return self.process.stdout.readline().strip()

    def start(self, *arguments):
        self.process.stdin.write(" ".join(map(str, arguments)) + "\n")
        self.process.stdin.flush()
        return int(self.read())

    def exit_code(self):
        return int(self.read())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def host():
    host = Host()
    yield host
    host.close()


@pytest.fixture(scope="module")
def whole(host, tmp_path_factory):
    """Draws of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    host.start(*ARGUMENTS, "--out", out)
    assert host.exit_code() == 0
    return draws(out)


def draws(run):
    with open_trace(run) as tree:
        return {
            (group, str(name)): values.to_numpy()
            for group in ("posterior", "sample_stats")
            for name, values in tree[group].data_vars.items()
        }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=str(key), strict=True)


def stop_at_some_moment(host, run, arguments, number, moments, segments=0):
    """Start a run, send it a signal once it has made so many segments; return how many it had."""
    before = len(segment_paths(run))
    state = run / "state.safetensors"
    saved = state.stat().st_mtime_ns if state.exists() else 0
    pid = host.start(*arguments)
    deadline = time.monotonic() + 120
    while (
        not state.exists()
        or state.stat().st_mtime_ns == saved
        or len(segment_paths(run)) < before + segments
    ):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(moments.uniform(0.0, 0.15))
    os.kill(pid, number)
    return len(segment_paths(run)) - before


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_many_times_over_and_stopped_by_ctrl_c(host, whole, tmp_path, times):
    run, moments = tmp_path / "run", random.Random()
    arguments, codes, gained = [*ARGUMENTS, "--out", run], [], []
    signals = [signal.SIGKILL] * (times - 1) + [signal.SIGINT]
    for stop, number in enumerate(signals):
        # Every second one falls into sampling, the others where they fall.
        gained.append(stop_at_some_moment(host, run, arguments, number, moments, stop % 2))
        codes.append(host.exit_code())
        arguments = ["--resume", "--out", run]
        assert not (run / "trace.nc").exists()
    assert codes == [-signal.SIGKILL] * (times - 1) + [130]
    assert sum(gained) >= times // 2
    host.start(*arguments, "--no-report")
    assert host.exit_code() == 0
    assert_same(draws(run), whole)


@pytest.mark.slow
def test_killed_as_a_process_of_its_own(whole, tmp_path):
    """Once without the host, as a user does it."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pyro_bnn.infer"]
    process = subprocess.Popen([*command, *ARGUMENTS, "--out", str(run)])
    while len(segment_paths(run)) < 5:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, "--resume", "--out", str(run), "--no-report"], check=True)
    assert_same(draws(run), whole)
