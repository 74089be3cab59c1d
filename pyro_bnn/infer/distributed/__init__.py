"""Work in blocks, on one machine or many: who computes a block does not change the result."""

from __future__ import annotations

from pyro_bnn.infer.distributed.partition import Block, blocks
from pyro_bnn.infer.distributed.scheduler import Scheduler

__all__ = ["Block", "Scheduler", "blocks"]
