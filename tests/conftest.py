"""What all tests share."""

from __future__ import annotations

import torch

# The tensors are small: a second thread only waits for the first, and beside another busy process
# it makes every operator up to twenty times slower.
torch.set_num_threads(1)
