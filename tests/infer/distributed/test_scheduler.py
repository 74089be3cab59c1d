"""Workers of a local cluster: killed, they change nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.blocks import run_block
from pyro_bnn.infer.distributed import Scheduler

SHORT = {"chains": 2, "draws": 60, "block": 1, "segment_draws": 10}
LONG = {"chains": 6, "draws": 600, "warmup": 150, "block": 2, "segment_draws": 50}


def test_without_a_cluster_tasks_follow_one_another():
    seen = []
    with Scheduler("none") as scheduler:
        found = scheduler.map(str, [1, 2], watch=seen.append)
        assert next(found) == "1"
        assert seen == []
        assert list(found) == ["2"]
    assert seen == [[True, False], [True, True]]


def test_what_cannot_be_is_refused(tmp_path):
    (tmp_path / "file.json").write_text("{}", encoding="utf-8")
    with (
        pytest.raises(UserError, match=r"no Dask scheduler answers at .*file\.json"),
        Scheduler(str(tmp_path / "file.json")),
    ):
        pass
    with pytest.raises(UserError, match="only with the scheduler 'local'"):
        Scheduler("none", workers=2)
    with (
        pytest.raises(UserError, match="no Dask scheduler answers at nowhere"),
        Scheduler("nowhere"),
    ):
        pass


class Client:
    """Stands for Dask's, with tasks that end as told."""

    def __init__(self, *ends):
        self.ends = list(ends)
        self.resources = []
        self.cancelled = []

    def submit(self, call, function, task, key, resources):
        self.resources.append(resources)
        return Future(self.ends[task])

    def cancel(self, futures):
        self.cancelled += futures


class Future:
    def __init__(self, end):
        self.end = end
        self.status = {"waits": "pending", "fails": "error"}.get(end, "finished")

    def done(self):
        return self.status != "pending"

    def result(self, timeout):
        if self.end == "fails":
            raise UserError("the model cannot be sampled")
        if self.end == "waits":
            raise TimeoutError
        return self.end

    def release(self):
        pass


def with_client(client, device="cpu"):
    scheduler = Scheduler("an address").for_device(device)
    scheduler._client = client
    return scheduler


@pytest.mark.parametrize(("device", "resources"), [("cuda:0", {"GPU": 1}), ("cpu", None)])
def test_a_task_takes_a_gpu_by_its_tag(device, resources):
    client = Client("a", "b")
    assert list(with_client(client, device).map(str, [0, 1])) == ["a", "b"]
    assert client.resources == [resources] * 2


def test_the_failure_of_a_later_task_is_told_at_once_and_the_others_are_given_up():
    client = Client("waits", "fails", "waits")
    with pytest.raises(UserError, match="cannot be sampled"):
        list(with_client(client).map(str, [0, 1, 2]))
    assert [future.end for future in client.cancelled] == ["waits", "waits"]


def run_block_and_die(task):
    """Run a block, but the first time kill this worker when some of its draws are saved."""
    folder = Path(task.run) / "blocks" / f"{task.block.index:06d}"
    mark = folder / "killed"

    def kill():
        while not draws_saved(folder):
            time.sleep(0.001)
        mark.write_text(str(draws_saved(folder)))
        os.kill(os.getpid(), signal.SIGKILL)

    if task.environment.get("doomed", "") > str(task.block.index) and not mark.exists():
        threading.Thread(target=kill, daemon=True).start()
    return run_block(task)


def draws_saved(folder):
    try:
        with safe_open(folder / "state.safetensors", framework="pt") as file:
            return json.loads(file.metadata()["progress"])["draws"]
    except (OSError, SafetensorError):
        return 0


class Deadly(Scheduler):
    """A local cluster of which the first blocks kill the worker that takes them first."""

    deaths = 0

    def map(self, function, tasks, watch=None):
        assert function is run_block
        doomed = [replace(task, environment={"doomed": str(self.deaths)}) for task in tasks]
        return super().map(run_block_and_die, doomed, watch)


@pytest.mark.parametrize(
    ("run", "workers", "deaths"),
    [
        pytest.param(SHORT, 1, 1, marks=pytest.mark.slow),
        pytest.param(LONG, 2, 2, marks=pytest.mark.slow),
    ],
)
def test_killed_workers_change_no_bit(sampled, assert_same, tmp_path, run, workers, deaths):
    _, expected = sampled(Scheduler("none"), "alone", run=run)
    deadly = Deadly("local", workers=workers, dashboard=False)
    deadly.deaths = deaths
    outcome, found = sampled(deadly, "killed", run=run)
    assert_same(found, expected)
    marks = [int(mark.read_text()) for mark in tmp_path.glob("killed/blocks/*/killed")]
    assert len(marks) == deaths
    # In the middle of sampling, not before or after it.
    assert all(0 < draws < run["draws"] for draws in marks)
    assert outcome.progress.draws == run["draws"]
