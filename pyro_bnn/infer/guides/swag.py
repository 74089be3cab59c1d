"""SWAG: a Gaussian through the iterates of stochastic gradient descent (Maddox et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.gaussian import draw_low_rank, log_prob_low_rank
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.infer.guides.training import Training
from pyro_bnn.logdensity import LogDensity

__all__ = ["SWAG"]

_LEAST_VARIANCE = 1e-30


class SWAG(Guide):
    """Stochastic weight averaging, Gaussian; its ensemble is multi-SWAG.

    After the training proper, which is `training`'s, the learning rate stays at `collect_rate` for
    `collect_epochs` epochs. Of the iterate at the end of each of them are kept the mean, the
    variance of every weight, and the last `rank` deviations from the running mean. The guide is

    ``Normal(mean, scale * (diag(variance) / 2 + D D' / (2 (rank - 1))))``

    (algorithm 1 and equation 1 of the paper; the variance is accumulated as Welford does, which
    does not lose digits where a weight moves little).

    Parameters
    ----------
    model, training, init_strategy, fail_above
        As for every `Guide`; the paper trains by SGD with momentum.
    collect_epochs : int
        Epochs whose iterates are collected.
    collect_rate : float
        Learning rate meanwhile.
    rank : int
        Deviations that are kept; 0 for SWAG-diagonal.
    scale : float
        Multiplies the covariance.

    Raises
    ------
    UserError
        If a number is out of range.
    """

    decouples = True
    has_density = True

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        training: Training | None = None,
        *,
        collect_epochs: int = 40,
        collect_rate: float = 0.01,
        rank: int = 20,
        scale: float = 1.0,
        init_strategy: Callable[..., Any] | None = None,
        fail_above: float | None = None,
    ) -> None:
        super().__init__(model, training, init_strategy=init_strategy, fail_above=fail_above)
        if collect_epochs < 2:
            raise UserError(f"SWAG: collect_epochs is {collect_epochs}, give at least 2")
        if rank == 1 or not 0 <= rank <= collect_epochs:
            raise UserError(
                f"SWAG: rank is {rank}, give 0 or 2 to collect_epochs ({collect_epochs})"
            )
        if collect_rate <= 0 or scale <= 0:
            raise UserError("SWAG: collect_rate and scale have to be positive")
        self.collect_epochs = collect_epochs
        self.collect_rate = collect_rate
        self.rank = rank
        self.scale = scale

    @property
    def epochs(self) -> int:
        """Epochs of the training and of the collection."""
        return self.training.epochs + self.collect_epochs

    def rate(self, epoch: float) -> float:
        """Follow the schedule of the training, then stay at `collect_rate`."""
        return super().rate(epoch) if epoch < self.training.epochs else self.collect_rate

    def numbers(self, density: LogDensity) -> int:
        """Count the iterate, its moments and the deviations."""
        return density.dim * (self.rank + 3)

    def collect(self, memory: Parameters, parameters: Parameters, epoch: int) -> Parameters:
        """Bring mean, sum of squared deviations and the last deviations up to date."""
        if epoch <= self.training.epochs:
            return memory
        iterate = parameters["position"]
        if not memory:
            mean = torch.zeros_like(iterate)
            memory = {"mean": mean, "squares": mean, "deviations": mean[:, None][:, :0]}
        count = epoch - self.training.epochs
        before = iterate - memory["mean"]
        mean = memory["mean"] + before / count
        deviation = iterate - mean
        kept = torch.cat([memory["deviations"], deviation[:, None]], 1)
        return {
            "mean": mean,
            "squares": memory["squares"] + before * deviation,
            "deviations": kept[:, max(0, kept.shape[1] - self.rank) :],
        }

    def finish(self, parameters: Parameters, memory: Parameters, density: LogDensity) -> Parameters:
        """Return the mean and the square roots of the two parts of the covariance."""
        if not memory:  # no member lived to see the collection
            lost = torch.full_like(parameters["position"], torch.nan)
            return {
                "mean": lost,
                "deviation": lost,
                "factor": lost[:, None].expand(-1, self.rank, -1),
            }
        variance = (memory["squares"] / self.collect_epochs).clamp(min=_LEAST_VARIANCE)
        # Half of the diagonal, or all of it where there is nothing beside it.
        share = 0.5 if self.rank else 1.0
        spread = 2 * max(1, self.rank - 1)
        return {
            "mean": memory["mean"],
            "deviation": (self.scale * share * variance).sqrt(),
            "factor": memory["deviations"] * (self.scale / spread) ** 0.5,
        }

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw from the Gaussian."""
        return draw_low_rank(state["mean"], state["deviation"], state["factor"], count, sources)

    def log_prob(self, state: Parameters, position: Tensor) -> Tensor:
        """Log density of the Gaussian."""
        return log_prob_low_rank(
            state["mean"], state["deviation"].square(), state["factor"], position
        )
