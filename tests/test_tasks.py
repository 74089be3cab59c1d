"""Tasks in threads: in order, few at a time, and with the threads of torch left as they were."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from pyro_bnn.tasks import in_threads, one_thread


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_tasks(threads):
    def late(number):
        time.sleep(0.01 * (5 - number))
        return number, threading.current_thread() is threading.main_thread()

    found = list(in_threads(late, range(5)))
    assert [number for number, _ in found] == list(range(5))
    assert all(main == (threads == 1) for _, main in found)


def test_no_more_tasks_are_begun_than_there_are_threads_and_one(threads):
    begun = []

    def tasks():
        for number in range(20):
            begun.append(number)
            yield number

    mapped = in_threads(abs, tasks())
    next(mapped)
    assert len(begun) <= threads + 1
    mapped.close()
    assert len(begun) <= threads + 1


def test_a_failure_is_raised(threads):
    def fail(number):
        raise ValueError(f"task {number}")

    with pytest.raises(ValueError, match="task 0"):
        list(in_threads(fail, range(4)))


def test_one_thread_is_for_the_task_alone(threads):
    def seen(_):
        with one_thread():
            return torch.get_num_threads()

    assert list(in_threads(seen, range(6))) == [1] * 6
    assert torch.get_num_threads() == threads
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [threads]
