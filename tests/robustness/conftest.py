"""A small model, runs of it in processes of their own, and traces to damage."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from pyro_bnn.errors import UserError
from pyro_bnn.trace import open_trace

# A campaign sets these; by default the tests take seconds.
settings.register_profile(
    "robustness",
    max_examples=int(os.environ.get("PYRO_BNN_FUZZ", "100")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)

SCRIPT = """
import torch
from torch import nn
from pyro_bnn import Data, Split
from pyro_bnn.nn import Normal, gaussian, lift

bnn = lift(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), prior=Normal(scale="fan_in"))


def model(x, y=None):
    return gaussian(bnn(x), y, noise=0.3)


def data():
    x = torch.linspace(-2, 2, 60).reshape(30, 2)
    y = torch.sin(x[:, 0])
    return Data(Split(x[:20], y[:20]), Split(x[20:], y[20:]))
"""

BRIEF = [
    "--chains=2",
    "--warmup=10",
    "--draws=40",
    "--recipe=hmc.toml",
    "--set=kernel.num_steps=3",
    "--set=run.segment_draws=4",
    "--set=run.threads=1",
    "--set=quotient.enabled=false",
    "--no-report",
]

# Imports once. At "start FILE BYTES ARGUMENTS..." it becomes that command in a child, which may
# write files of so many bytes (0: of any size), and tells its number; at "wait NUMBER", its end.
_HOST = """
import os, resource, shlex, sys, traceback
import pyro_bnn.diagnostics, pyro_bnn.infer.cli.choosing, pyro_bnn.infer.cli.running
import dask.array, sklearn.datasets, torch._dynamo
from pyro_bnn.infer.cli.app import main

def become(log, limit, arguments):
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["pyro-bnn", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0

print("ready", flush=True)
for line in sys.stdin:
    verb, *words = shlex.split(line)
    if verb == "wait":
        print(os.waitstatus_to_exitcode(os.waitpid(int(words[0]), 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        os._exit(become(words[0], words[1], words[2:]))
    print(child, flush=True)
"""


class Started:
    """A command that was started."""

    def __init__(self, host, pid, log):
        self._host, self.pid, self.log = host, pid, log

    def kill(self, number):
        """Send it a signal; a child that has ended is not gone before it is waited for."""
        os.kill(self.pid, number)

    def wait(self):
        """Return its exit code."""
        self._host.say("wait", self.pid)
        return int(self._host.hear())

    @property
    def text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def assert_one_sentence(self, *parts):
        """Check for a last line that is a sentence of ours, holds `parts`, and no traceback."""
        assert "Traceback" not in self.text, self.text
        last = self.text.splitlines()[-1]
        assert last.startswith("pyro-bnn: "), self.text
        for part in parts:
            assert str(part) in last, (part, last)


class Host:
    """Starts commands without paying for the imports each time."""

    def __init__(self, folder):
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.hear() == "ready"

    def say(self, *words):
        self._process.stdin.write(shlex.join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def hear(self):
        return self._process.stdout.readline().strip()

    def start(self, *arguments, file_limit=0):
        self._count += 1
        log = self._folder / f"{self._count}.log"
        self.say("start", log, file_limit, *arguments)
        return Started(self, int(self.hear()), log)

    def run(self, *arguments, file_limit=0):
        """Start a command and wait for it: its exit code, and what it printed."""
        started = self.start(*arguments, file_limit=file_limit)
        return started.wait(), started

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """Start a process that becomes commands."""
    host = Host(tmp_path_factory.mktemp("logs"))
    yield host
    host.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Write a model script of 13 weights."""
    path = tmp_path_factory.mktemp("model") / "small.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def brief():
    """Return the options of a run of a second."""
    return BRIEF


@pytest.fixture(scope="session")
def outcome():
    """Return a function that calls another: what it returned, and the sentence if it refused."""

    def call(function, *arguments):
        try:
            return function(*arguments), None
        except UserError as error:
            return None, str(error)

    return call


@pytest.fixture(scope="session")
def whole(host, model, tmp_path_factory):
    """Make a run that nothing disturbs; its directory is not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    code, started = host.run("infer", model, *BRIEF, "--out", out)
    assert code == 0, started.text
    return out


@pytest.fixture
def finished(whole, tmp_path):
    """Copy that directory, to be damaged."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="session")
def divided(host, whole, tmp_path_factory):
    """Divide a copy of that run by its symmetries; its directory is not to be changed."""
    out = tmp_path_factory.mktemp("divided") / "run"
    shutil.copytree(whole, out)
    code, started = host.run("quotient", out)
    assert code == 0, started.text
    return out


@pytest.fixture(scope="session")
def groups():
    """Return a function that reads what sampling and the quotient made."""

    def read(run):
        with open_trace(run) as tree:
            return {
                (group, str(name)): values.to_numpy()
                for group in ("posterior", "sample_stats", "canonical_posterior")
                if group in tree.children
                for name, values in tree[group].data_vars.items()
            }

    return read


@pytest.fixture(scope="session")
def assert_same():
    """Return a function that compares what `groups` read, bit for bit."""

    def compare(found, expected):
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values, err_msg=str(key), strict=True)

    return compare
