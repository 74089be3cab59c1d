"""What a model script's ``data()`` returns, and the loaders of the scripts that ship."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.corruption import Corruption, table_corruptions
from pyro_bnn.errors import UserError

__all__ = ["Data", "Split", "standardised_split"]


@dataclass(frozen=True)
class Split:
    """Inputs and targets of one part of a data set.

    Attributes
    ----------
    x : Tensor
        Inputs ``(row, *features)``.
    y : Tensor
        Targets ``(row, ...)``.
    transform : callable, optional
        Augmentation: takes a row of x and returns one of the same shape. Guides train on rows
        that it has changed anew each time; its random numbers are torch's own.

    Raises
    ------
    UserError
        If x and y are no tensors, have different numbers of rows, are empty, or hold NaN or
        infinities.
    """

    x: Tensor
    y: Tensor
    transform: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(
        cls,
        dataset: Iterable[tuple[Any, Any]],
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> Split:
        """Read every row of a `torch.utils.data.Dataset` once, as a split in memory.

        Parameters
        ----------
        dataset : iterable of (x, y)
            Its own transform makes the tensors and should not be random.
        transform : callable, optional
            Augmentation, applied to each row whenever it is trained on.
        """
        rows = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in dataset]
        if not rows:
            raise UserError("the data set has no rows")
        return cls(torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows]), transform)

    def __post_init__(self) -> None:
        for name, given in (("x", self.x), ("y", self.y)):
            if not isinstance(given, Tensor):
                raise UserError(
                    f"{name} is a {type(given).__name__}: make it a tensor, such as "
                    "torch.tensor(values, dtype=torch.float32)"
                )
        if self.x.shape[:1] != self.y.shape[:1]:
            raise UserError(
                f"x has shape {tuple(self.x.shape)} and y {tuple(self.y.shape)}: they need the "
                "same number of rows"
            )
        if len(self.x) == 0:
            raise UserError("the split is empty: x and y have no rows")
        for name, tensor in (("x", self.x), ("y", self.y)):
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                row = (
                    int((~tensor.isfinite()).flatten(1).any(1).nonzero()[0])
                    if tensor.ndim > 1
                    else int((~tensor.isfinite()).nonzero()[0])
                )
                raise UserError(
                    f"{name} is NaN or infinite in row {row}: impute or drop such rows in data()"
                )

    def to(self, device: torch.device | str) -> Split:
        """Return the split on another device."""
        return Split(self.x.to(device), self.y.to(device), self.transform)


@dataclass(frozen=True)
class Data:
    """Training and test splits, and any number of out-of-distribution ones.

    Attributes
    ----------
    train, test : Split
        What the model is conditioned on, and what it is judged by.
    ood : mapping of str to Split
        Inputs from elsewhere, by name.
    name : str
        Said in the report.
    corruptions : mapping of str to callable
        Ways to corrupt the test inputs, by name, under which predictions are judged too:
        ``pyro_bnn.corruption`` has those of images and of tables.
    """

    train: Split
    test: Split
    ood: Mapping[str, Split] = field(default_factory=dict)
    name: str = ""
    corruptions: Mapping[str, Corruption] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, split in {"test": self.test, **self.ood}.items():
            if split.x.shape[1:] != self.train.x.shape[1:]:
                raise UserError(
                    f"split '{name}' has inputs of shape {tuple(split.x.shape[1:])}, the training "
                    f"split of {tuple(self.train.x.shape[1:])}: they have to agree"
                )

    def to(self, device: torch.device | str) -> Data:
        """Return all splits on another device."""
        ood = {name: split.to(device) for name, split in self.ood.items()}
        return replace(self, train=self.train.to(device), test=self.test.to(device), ood=ood)


def standardised_split(
    x: Tensor,
    y: Tensor,
    *,
    test_fraction: float = 0.2,
    seed: int = 0,
    standardise_y: bool = False,
    name: str = "",
) -> Data:
    """Shuffle, split and standardise a table by the training rows' mean and deviation.

    Parameters
    ----------
    x : Tensor
        Inputs ``(row, feature)``; a feature that is constant in training is only centred.
    y : Tensor
        Targets ``(row,)``.
    test_fraction : float
        Share of rows that are held out.
    seed : int
        Of the shuffle.
    standardise_y : bool
        Standardise the targets too (regression).
    name : str
        Name of the data set.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held = round(test_fraction * len(x))
    test, train = order[:held], order[held:]

    def standard(values: Tensor) -> Tensor:
        mean, deviation = values[train].mean(0), values[train].std(0)
        return (values - mean) / torch.where(deviation > 0, deviation, 1.0)

    x = standard(x)
    y = standard(y) if standardise_y else y
    return Data(
        Split(x[train], y[train]),
        Split(x[test], y[test]),
        name=name,
        corruptions=table_corruptions(x[train]),
    )
