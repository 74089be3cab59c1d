"""A process that trains blocks of members for another one.

It reads what to train, then blocks, from its standard input, and answers each with what became of
it on its standard output. Whatever else is printed goes to standard error.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from types import FrameType
from typing import BinaryIO, NamedTuple

__all__ = ["Answer", "main", "serve"]


class Answer(NamedTuple):
    """What became of a block.

    Attributes
    ----------
    trained : Trained or None
        Its outcome.
    refused : str
        The sentence of a `UserError` instead.
    failed : str
        The traceback of any other error instead.
    out_of_memory : str
        What an allocator said instead.
    """

    trained: object = None
    refused: str = ""
    failed: str = ""
    out_of_memory: str = ""


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Train blocks until the source ends."""
    sys.path[:] = pickle.load(source)

    import torch

    from pyro_bnn.allocator import keep_freed_memory
    from pyro_bnn.errors import UserError
    from pyro_bnn.halving import ran_out_of_memory
    from pyro_bnn.infer.guides.training_block import train_block
    from pyro_bnn.infer.interrupt import FinishStepFirst

    class FinishEpochFirst(FinishStepFirst):
        """Takes any number of Ctrl-C for one: a terminal sends it, and then the other process."""

        def _note(self, number: int, frame: FrameType | None) -> None:
            self.requested = True

    threads = pickle.load(source)
    torch.set_num_threads(threads)
    keep_freed_memory()
    with FinishEpochFirst() as interrupt:
        guide, density, directory, save_every = pickle.load(source)
        while True:
            try:
                block = pickle.load(source)
            except EOFError:
                return
            try:
                found = train_block(guide, density, block, directory, save_every, interrupt)
                answer = Answer(found)
            except UserError as error:
                answer = Answer(refused=str(error))
            except KeyboardInterrupt:
                return
            except Exception as error:
                if ran_out_of_memory(error):
                    answer = Answer(out_of_memory=str(error) or "MemoryError")
                else:
                    answer = Answer(failed=traceback.format_exc())
            pickle.dump(answer, sink)
            sink.flush()


def main() -> None:
    """Serve the process that started this one, whose pipe is kept for answers alone."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # models may print
    serve(sys.stdin.buffer, answers)
