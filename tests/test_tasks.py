"""A task computes in one thread, and leaves the threads of torch as they were."""

from __future__ import annotations

import threading

import pytest
import torch

from pyro_bnn.tasks import one_thread


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_one_thread_is_for_the_task_alone(threads):
    def seen(_):
        with one_thread():
            return torch.get_num_threads()

    assert list(map(seen, range(6))) == [1] * 6
    assert torch.get_num_threads() == threads
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [threads]
