"""What all tests share."""

from __future__ import annotations

import os

# The tensors are small: a second thread only waits for the first, and beside another busy process
# it makes every operator up to twenty times slower. The variable is for NumPy and for processes
# that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Take back what a command has chosen for this process."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def two_threads(_one_thread):
    """Compute as on two cores."""
    torch.set_num_threads(2)
