"""The command line, called in this process: starting Python costs seconds each time."""

from __future__ import annotations

import sys

import pytest

from pyro_bnn.diagnostics.report import embeddings
from pyro_bnn.infer.cli.app import main, main_infer

SCRIPT = """
import torch
from torch import nn
from pyro_bnn import Data, Split
from pyro_bnn.nn import Normal, gaussian, lift

net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
bnn = lift(net, prior=Normal(scale="fan_in"))


def model(x, y=None):
    return gaussian(bnn(x), y)


def data():
    x = torch.linspace(-2, 2, 60).reshape(30, 2)
    y = torch.sin(x[:, 0]) + 0.1 * torch.cos(40 * x[:, 1])
    return Data(Split(x[:20], y[:20]), Split(x[20:], y[20:]), name="a sine")
"""

BRIEF = [
    "--chains=3",
    "--warmup=30",
    "--draws=12",
    "--recipe=hmc.toml",
    "--set=kernel.num_steps=4",
    "--set=run.segment_draws=5",
    "--set=run.threads=1",
]


class Outcome:
    """What a command left behind."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def assert_refused(self, *parts):
        """Check for one sentence on stderr that holds `parts`, and exit code 2."""
        assert self.code == 2, self.err or self.out
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err + self.out
        assert lines[0].startswith("pyro-bnn: ")
        for part in parts:
            assert str(part) in lines[0], (part, lines[0])


@pytest.fixture(autouse=True)
def _without_tsne(monkeypatch):
    """Leave out what takes seconds a page; tests/diagnostics/test_embedding.py draws it."""
    monkeypatch.setattr(embeddings, "has_method", lambda method: method == "pca")


@pytest.fixture
def command(capsys, monkeypatch):
    """Return a function that runs ``pyro-bnn`` with some arguments."""

    def run(*arguments, program=main):
        monkeypatch.setattr(sys, "argv", ["pyro-bnn", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            program()
        except SystemExit as exit_:
            code = exit_.code or 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def infer(command):
    """Return a function that runs ``python -m pyro_bnn.infer`` briefly."""

    def run(*arguments):
        return command(*BRIEF, *arguments, program=main_infer)

    return run


@pytest.fixture
def script(tmp_path):
    """Return a function that writes a model script, parts of its text exchanged."""

    def write(*exchanges, name="tiny.py"):
        text = SCRIPT
        for old, new in exchanges:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
