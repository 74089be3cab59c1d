"""Augmented minibatches, fetched by torch's DataLoader for all members of a block at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity, Rows

__all__ = ["augmented_batches", "first_rows", "in_steps"]

_Key = tuple[int, int]


def augmented_batches(
    density: LogDensity,
    orders: Tensor,
    size: int,
    seeds: Sequence[int],
    loaders: int,
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the minibatches of an epoch, each a tensor ``(member, batch, ...)`` a data tensor.

    The random numbers of a row's augmentation depend on its member's seed and its place in the
    member's order alone: on no other member, and on no process that fetches it.

    Parameters
    ----------
    density : LogDensity
        Holds the data and the transform.
    orders : Tensor
        Rows of each member in its own order ``(member, row)``.
    size : int
        Rows of a minibatch; those that fill none are left out.
    seeds : sequence of int
        Of each member's epoch.
    loaders : int
        Processes that fetch; 0 for this one.

    Raises
    ------
    UserError
        If the transform changes the shape of a row.
    """
    assert density.transform is not None
    first, *others = (tensor.cpu() for tensor in density.row_data())
    rows = _Rows(first, others, density.transform)
    numbers = orders.tolist()
    keys = [
        [
            (row, seed + start + place)
            for order, seed in zip(numbers, seeds, strict=True)
            for place, row in enumerate(order[start : start + size])
        ]
        for start in range(0, orders.shape[1] - size + 1, size)
    ]
    loader: DataLoader[tuple[Tensor, ...]] = DataLoader(
        rows,
        batch_sampler=keys,
        num_workers=loaders,
        generator=torch.Generator(),  # or it would draw from torch's own
    )
    for batch in loader:
        if batch[0].shape[1:] != first.shape[1:]:
            raise UserError(
                f"the transform of the training rows returns {tuple(batch[0].shape[1:])} for a "
                f"row of shape {tuple(first.shape[1:])}: it has to keep the shape"
            )
        yield tuple(tensor.to(density.device).unflatten(0, (len(orders), size)) for tensor in batch)


def first_rows(density: LogDensity, members: int, size: int | None) -> Rows:
    """Return the first rows in the form that minibatches have, so that a graph serves for both.

    Parameters
    ----------
    density : LogDensity
        Holds the data, and the transform if they are augmented; these rows are not.
    members : int
        How many are trained together.
    size : int, optional
        Rows of a minibatch; all by default.
    """
    count = min(size or density.rows, density.rows)
    rows = torch.arange(count, device=density.device).expand(members, -1)
    if density.transform is None:
        return rows
    return tuple(tensor[rows] for tensor in density.row_data())


def in_steps(density: LogDensity, size: int | None) -> LogDensity:
    """Return the density over chunks as large as a minibatch: the activations of more may not fit.

    Parameters
    ----------
    density : LogDensity
        Of any data.
    size : int, optional
        Rows of a minibatch; all by default.
    """
    return density if size is None or not density.rows else density.chunked(size)


class _Rows(Dataset[tuple[Tensor, ...]]):
    """Rows by number and seed, the first tensor's changed by the transform."""

    def __init__(
        self, first: Tensor, others: Sequence[Tensor], transform: Callable[[Tensor], Tensor]
    ) -> None:
        self._first = first
        self._others = others
        self._transform = transform

    def __getitem__(self, key: _Key) -> tuple[Tensor, ...]:
        row, seed = key
        with torch.random.fork_rng(devices=[]):
            # Of the CPU, where the rows are: torch's manual_seed() formats a traceback each time.
            torch.default_generator.manual_seed(seed)
            changed = self._transform(self._first[row])
        return (changed, *(tensor[row] for tensor in self._others))
