"""Ensemble-initialised chains: optimise members first, then sample from each (Sommer et al. 2025).

A posterior of a network has far more modes than a chain visits. Optimisers find them at a hundredth
of the price of warm-up, so that chains are spread over modes by training and explore them by
sampling; nested R-hat by member tells the two apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity

__all__ = ["EnsembleStart", "ensemble_start"]


class EnsembleStart(NamedTuple):
    """Where the chains start, and how the optimisation of their members went.

    Attributes
    ----------
    params : dict of str to Tensor
        Unconstrained site values ``(chain, *shape)``: `MCMC`'s ``initial_params``.
    members : list of int
        The member of each chain; the chains of a member are neighbours.
    loss : Tensor
        Of each member's kept position ``(member,)``: minus the mean log likelihood of a held-out
        row, or minus the log posterior over the number of rows where none is held out.
    epochs : Tensor
        After how many epochs that position was reached, ``(member,)``.
    converged : list of bool
        Of each member, whether its loss is finite and below that of its start.
    """

    params: dict[str, Tensor]
    members: list[int]
    loss: Tensor
    epochs: Tensor
    converged: list[bool]


def ensemble_start(
    density: LogDensity,
    members: int,
    num_chains: int,
    generator: torch.Generator,
    *,
    epochs: int = 200,
    learning_rate: float = 0.01,
    batch_size: int | None = None,
    held_out: float = 0.1,
    patience: int = 10,
    jitter: float = 0.0,
) -> EnsembleStart:
    """Optimise members from prior draws and let as many chains start from each.

    All members descend side by side on minus the log posterior with Adam, each on minibatches of
    its own. With rows held out, a member keeps the position of its best epoch and stops after
    `patience` epochs without a better one. The prior is the weight decay.

    Parameters
    ----------
    density : LogDensity
        The posterior. Sampling goes on with all rows, those held out here included.
    members : int
        How many optima.
    num_chains : int
        Chains in all, a multiple of `members`.
    generator : torch.Generator
        Of starts, minibatches and jitter.
    epochs : int
        Passes over the data at most.
    learning_rate : float
        Adam's.
    batch_size : int, optional
        Rows of a step; all of them by default, one step an epoch.
    held_out : float
        Share of the rows, in [0, 0.5], that judge when to stop; at 0 all epochs are made.
    patience : int
        Epochs without improvement after which a member stops.
    jitter : float
        Deviation of normal noise that is added to each chain's start, in unconstrained space.

    Raises
    ------
    UserError
        If a number is out of range, or the data have no rows to hold out or to batch.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro_bnn import LogDensity
    >>> def model(y):
    ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(y)):
    ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> density = LogDensity(model, torch.ones(20))
    >>> start = ensemble_start(density, 2, 6, torch.Generator().manual_seed(0))
    >>> start.members, start.params["mean"].shape
    ([0, 0, 0, 1, 1, 1], torch.Size([6]))
    """
    if members < 1 or num_chains % members:
        raise UserError(
            f"ensemble_start: {num_chains} chains cannot start from {members} members: give a "
            "number of chains that is a multiple of the members"
        )
    if not 0 <= held_out <= 0.5:
        raise UserError(f"ensemble_start: held_out is {held_out}, give a share in [0, 0.5]")
    for name, value in (("epochs", epochs), ("patience", patience)):
        if value < 1:
            raise UserError(f"ensemble_start: {name} is {value}, give at least 1")
    rows = _Rows(density, held_out, batch_size, generator)
    position = density.initial_position(members, generator)
    trained = _descend(density, position, rows, epochs, learning_rate, patience)
    each = num_chains // members
    start = trained.position.repeat_interleave(each, 0)
    if jitter > 0:
        noise = torch.randn(
            start.shape, dtype=start.dtype, device=start.device, generator=generator
        )
        start = start + jitter * noise
    return EnsembleStart(
        params=density.unflatten(start),
        members=[chain // each for chain in range(num_chains)],
        loss=trained.loss,
        epochs=trained.epoch,
        converged=trained.converged.tolist(),
    )


class _Trained(NamedTuple):
    """The kept iterates: ``(member, dim)``, and ``(member,)`` each."""

    position: Tensor
    loss: Tensor
    epoch: Tensor
    converged: Tensor


class _Rows:
    """Which rows train and which judge."""

    def __init__(
        self,
        density: LogDensity,
        held_out: float,
        batch_size: int | None,
        generator: torch.Generator,
    ) -> None:
        count = density.rows
        judging = round(held_out * count)
        if batch_size is not None and not 1 <= batch_size <= max(count - judging, 1):
            raise UserError(
                f"ensemble_start: batch_size is {batch_size}, give between 1 and the "
                f"{count - judging} rows that train"
            )
        if count == 0 and (held_out > 0 or batch_size is not None):
            raise UserError(
                "ensemble_start: the model observes no rows: give held_out = 0 and no batch_size"
            )
        order = torch.randperm(count, generator=generator, device=generator.device)
        self.count = max(count, 1)
        self.judging = order[:judging]
        self.training = order[judging:]
        self.batch_size = batch_size
        self.generator = generator

    def batches(self, members: int) -> list[Tensor | None]:
        """Return the minibatches of one epoch: all data, shared rows, or ``(member, batch)``."""
        if self.batch_size is None:
            return [self.training if len(self.judging) else None]
        random = torch.rand(
            (members, len(self.training)), generator=self.generator, device=self.training.device
        )
        order = self.training[random.argsort(1)]
        # Rows that do not fill a batch wait for another epoch, in another order.
        whole = len(self.training) // self.batch_size * self.batch_size
        return list(order[:, :whole].split(self.batch_size, 1))


def _descend(
    density: LogDensity,
    position: Tensor,
    rows: _Rows,
    epochs: int,
    learning_rate: float,
    patience: int,
) -> _Trained:
    loss = first = _loss(density, position, rows)
    kept, epoch = position, torch.zeros_like(loss, dtype=torch.int64)
    current = position.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([current], lr=learning_rate)
    for number in range(1, epochs + 1):
        for indices in rows.batches(len(position)):
            _, gradient = density.value_and_grad(current.detach(), indices=indices)
            current.grad = gradient / rows.count
            optimiser.step()
        # Without rows that judge, only the end counts.
        if len(rows.judging) == 0 and number < epochs:
            continue
        now = _loss(density, current.detach(), rows)
        better = now < loss
        if len(rows.judging):
            # A member that has stopped stays so, while others go on.
            better = better & (number - epoch <= patience)
        loss = torch.where(better, now, loss)
        kept = torch.where(better[:, None], current.detach(), kept)
        epoch = torch.where(better, number, epoch)
        if len(rows.judging) and bool((number - epoch >= patience).all()):
            break
    return _Trained(kept, loss, epoch, loss.isfinite() & (loss < first))


def _loss(density: LogDensity, position: Tensor, rows: _Rows) -> Tensor:
    if len(rows.judging) == 0:
        return density.value_and_grad(position)[0] / rows.count
    # The estimate is scaled to all rows.
    return -density.log_likelihood(position, rows.judging) / rows.count
