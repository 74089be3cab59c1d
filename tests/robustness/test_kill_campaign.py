"""``kill -9`` at random moments of whole runs, then resumption: the same draws, bit for bit.

``PYRO_BNN_KILLS`` is the number of runs that each test kills, those that sample and train twice.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from pyro_bnn.trace import check_trace

# The default run has tests/end_to_end/test_kill.py, which kills within sampling.
pytestmark = pytest.mark.slow

ENSEMBLE = [
    "--recipe=map.toml",
    "--chains=4",
    "--draws=1",
    "--set=guide.epochs=30",
    "--set=run.threads=1",
    "--set=quotient.enabled=false",
    "--no-report",
]
KILLS = int(os.environ.get("PYRO_BNN_KILLS", "3"))


def longest(host, *arguments):
    """Run a command to its end; return how long it took."""
    began = time.monotonic()
    code, started = host.run(*arguments)
    assert code == 0, started.text
    return time.monotonic() - began


@pytest.mark.parametrize("kind", ["sampler", "ensemble"])
def test_runs_that_are_killed_go_on(host, brief, model, groups, assert_same, tmp_path, kind):
    method = brief if kind == "sampler" else ENSEMBLE
    undisturbed = tmp_path / "undisturbed"
    seconds = longest(host, "infer", model, *method, "--out", undisturbed)
    expected, moments = groups(undisturbed), random.Random()
    survived = 0
    for number in range(KILLS):
        out = tmp_path / f"killed-{number}"
        arguments = ["infer", model, *method, "--out", out]
        # Twice in one run: once anywhere, once while it goes on.
        for _ in range(2):
            started = host.start(*arguments)
            time.sleep(moments.uniform(0.0, seconds))
            started.kill(signal.SIGKILL)
            code = started.wait()
            assert code in (0, -signal.SIGKILL), started.text
            survived += code == -signal.SIGKILL
            if (out / "recipe.toml").exists():
                arguments = ["infer", "--resume", "--no-report", "--out", out]
        code, started = host.run(*arguments)
        assert code == 0, started.text
        assert_same(groups(out), expected)
        check_trace(out / "trace.nc")
    assert survived > 0
    print(f"{kind}: {2 * KILLS} kills, {survived} of them before the run had ended")


def test_a_quotient_that_is_killed_leaves_the_trace(host, divided, groups, assert_same, tmp_path):
    finished = tmp_path / "run"
    shutil.copytree(divided, finished)
    before = groups(finished)
    again = ["quotient", finished, "--permutation=align"]
    seconds, moments = longest(host, *again), random.Random()
    aligned, survived = groups(finished), 0
    for _ in range(KILLS):
        started = host.start("quotient", finished)
        time.sleep(moments.uniform(0.0, seconds))
        started.kill(signal.SIGKILL)
        survived += started.wait() == -signal.SIGKILL
        check_trace(finished / "trace.nc")
        found = groups(finished)
        assert found.keys() == before.keys()
        canonical = [key for key in found if key[0] == "canonical_posterior"]
        drawn = {key: found[key] for key in found.keys() - canonical}
        assert_same(drawn, {key: before[key] for key in drawn})
        # All of the old ones, or all of the new ones.
        news = all((found[key] == before[key]).all() for key in canonical)
        olds = all((found[key] == aligned[key]).all() for key in canonical)
        assert news or olds
    assert survived > 0
    print(f"quotient: {KILLS} kills, {survived} of them before it had ended")
    longest(host, "quotient", finished)
    assert_same(groups(finished), before)
    assert [p.name for p in Path(finished).glob(".*")] == []


def test_ctrl_c_at_any_moment_says_how_to_go_on(
    host, brief, model, groups, assert_same, whole, tmp_path
):
    out, moments = tmp_path / "run", random.Random()
    started = host.start("infer", model, *brief, "--out", out)
    while not (out / "recipe.toml").exists():
        time.sleep(0.01)
    time.sleep(moments.uniform(0.0, 1.0))
    started.kill(signal.SIGINT)
    if started.wait() == 130:
        assert f"pyro-bnn infer --resume --out {out}" in started.text.replace("\n", "")
        assert "Traceback" not in started.text
        code, resumed = host.run("infer", "--resume", "--no-report", "--out", out)
        assert code == 0, resumed.text
    assert_same(groups(out), groups(whole))
