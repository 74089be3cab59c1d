"""What is remembered of a run's data, to tell whether they are the same when it is resumed."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_bnn.data import Data

__all__ = ["changed", "fingerprint"]

Fingerprint = dict[str, dict[str, list[float]]]

# Of the norm. Rounding moves the projection by 1e-7 of it, one other row among a million by 1e-3.
_TOLERANCE = 1e-6
_BLOCK = 2**22  # numbers that are widened to float64 at a time


def fingerprint(data: Data) -> Fingerprint:
    """Sum up the training and the test split.

    Of each tensor its shape, its norm and a projection in which every row and every column counts
    differently, so that the same rows in another order are told apart. A hash would differ where
    another machine rounds otherwise as it standardises the columns.

    Parameters
    ----------
    data : Data
        Its out-of-distribution splits are left out: they are evaluated after the sampling.

    Returns
    -------
    dict of str to dict
        ``shape`` and ``numbers`` of ``train.x``, ``train.y``, ``test.x`` and ``test.y``.

    Examples
    --------
    >>> from pyro_bnn import Split
    >>> x, y = torch.eye(3), torch.zeros(3)
    >>> before = fingerprint(Data(Split(x, y), Split(x, y)))
    >>> changed(before, fingerprint(Data(Split(x, y), Split(x.flip(0), y))))
    'test.x'
    """
    parts = {"train": data.train, "test": data.test}
    return {
        f"{name}.{side}": _of(getattr(split, side))
        for name, split in parts.items()
        for side in "xy"
    }


def changed(recorded: Fingerprint, now: Fingerprint) -> str | None:
    """Name the first tensor that is another than before, None if all are the same to rounding."""
    for name, facts in now.items():
        old = recorded[name]
        limit = _TOLERANCE * max(facts["numbers"][0], old["numbers"][0])
        pairs = zip(old["numbers"], facts["numbers"], strict=True)
        same = all(abs(before - after) <= limit for before, after in pairs)
        if facts["shape"] != old["shape"] or not same:
            return name
    return None


def _of(tensor: Tensor) -> dict[str, list[float]]:
    rows = tensor.detach().flatten(1) if tensor.ndim > 1 else tensor.detach()[:, None]
    height, width = rows.shape
    across = torch.arange(width, dtype=torch.float64).cos()
    down = torch.arange(height, dtype=torch.float64).mul(0.7).add(0.3).cos()
    square = projection = 0.0
    for some in torch.arange(height).split(max(1, _BLOCK // max(width, 1))):
        block = rows[some.to(rows.device)].to("cpu", torch.float64)
        square += float(block.square().sum())
        projection += float(down[some] @ (block @ across))
    return {"shape": [*map(float, tensor.shape)], "numbers": [square**0.5, projection]}
