"""When the training of a member counts as failed, and the record that is kept of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Failure", "judge"]


class Failure(NamedTuple):
    """A member that did not converge.

    Attributes
    ----------
    member : int
        Its number in the ensemble.
    seed : int
        What it was trained with.
    epoch : int
        The epoch at which it was found.
    reason : str
        The rule that it fell under.
    """

    member: int
    seed: int
    epoch: int
    reason: str

    def __str__(self) -> str:
        return f"member {self.member} (seed {self.seed}), epoch {self.epoch}: {self.reason}"


def judge(losses: Tensor, finite: Tensor, fail_above: float | None) -> list[tuple[int, str] | None]:
    """Judge each member by its own losses alone, so that it fares the same in any ensemble.

    A member has failed if

    - its loss or a parameter is NaN or infinite;
    - its mean loss of the last epoch is more than one nat a row above that of the first;
    - its mean loss of the last epoch is above `fail_above`.

    Parameters
    ----------
    losses : Tensor
        Mean loss per row of each epoch, ``(member, epoch)``.
    finite : Tensor
        Whether all parameters at the end are finite, ``(member,)``.
    fail_above : float, optional
        A limit in nats per row.

    Returns
    -------
    list of (int, str) or None
        The epoch, counted from 1, and the reason; None for a member that is well.
    """
    found: list[tuple[int, str] | None] = []
    for row, fine in zip(losses.double().cpu(), finite.tolist(), strict=True):
        first, last, epochs = float(row[0]), float(row[-1]), len(row)
        bad = (~torch.isfinite(row)).nonzero()
        if len(bad):
            found.append((int(bad[0]) + 1, "the loss is not finite"))
        elif not fine:
            found.append((epochs, "a parameter is not finite"))
        elif last > first + 1:
            found.append((epochs, f"the loss rose from {first:.4g} to {last:.4g} a row"))
        elif last > (math.inf if fail_above is None else fail_above):
            found.append((epochs, f"the loss is {last:.4g} a row, above {fail_above:.4g}"))
        else:
            found.append(None)
    return found
