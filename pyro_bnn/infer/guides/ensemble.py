"""`Ensemble`: any guide, several times, from independent starts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.logdensity import LogDensity

__all__ = ["Ensemble"]


class Ensemble(Guide):
    """The multi-mode form of a guide: its members are trained as one batch.

    Of a point estimate it is a deep ensemble, of SWAG multi-SWAG, and so on. Member m is the guide
    itself fitted alone with the seed ``seeds[m]``, to rounding; member 0 has the seed that was
    given. In a trace, a member is a chain.

    Parameters
    ----------
    guide : Guide
        What every member is; it is not changed.
    size : int
        Members.
    block : int, optional
        Members that are trained at once; by default as many as fit some 256 MB, 64 at most, or
        one at a time where convolutions on a CPU turn out to be faster so. `batching` says how
        many were, and why.
    workers : int
        Processes that train, each its own blocks; threads are shared out among them.
    retries : int
        How often a member that failed is trained again, with another seed, before it is left out.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro_bnn.infer.guides import PointEstimate, Training
    >>> def model(y):
    ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(y)):
    ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> training = Training(epochs=100, batch_size=None, learning_rate=0.1)
    >>> ensemble = Ensemble(PointEstimate(model, training), size=3).fit(torch.ones(3), seed=0)
    >>> ensemble.sample_posterior(2)["mu"].shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        guide: Guide,
        size: int,
        *,
        block: int | None = None,
        retries: int = 0,
        workers: int = 1,
    ) -> None:
        numbers = {"size": (size, 1), "block": (block, 1), "workers": (workers, 1)}
        for name, (value, least) in {**numbers, "retries": (retries, 0)}.items():
            if value is not None and value < least:
                raise UserError(f"Ensemble: {name} is {value}, give at least {least}")
        if isinstance(guide, Ensemble):
            raise UserError("an Ensemble of an Ensemble is one with more members: give its size")
        self.guide = copy.copy(guide)
        super().__init__(
            guide.model,
            None,
            init_strategy=guide.init_strategy,
            fail_above=guide.fail_above,
        )
        self.training = guide.training
        self.size, self.retries, self.workers = size, retries, workers
        self.block = guide.block if block is None else block
        self.trainable = guide.trainable if size == 1 else ()
        self.has_density = guide.has_density
        self.decouples = guide.decouples

    def numbers(self, density: LogDensity) -> int:
        """Count the numbers of a member as the guide does."""
        return self.guide.numbers(density)

    @property
    def rows_of_a_step(self) -> int | None:
        """Rows of a step of the guide."""
        return self.guide.rows_of_a_step

    def start(self, position: Tensor, density: LogDensity) -> Parameters:
        """Start every member as the guide does."""
        return self.guide.start(position, density)

    def take_step(
        self, density: LogDensity, sources: Sequence[torch.Generator]
    ) -> Callable[[], object]:
        """Return a function that computes one gradient of some members."""
        return self.guide.take_step(density, sources)

    def train(
        self,
        density: LogDensity,
        sources: Sequence[torch.Generator],
        resume: Mapping[str, Tensor] | None,
        save: Callable[[Mapping[str, Tensor]], None] | None,
    ) -> tuple[Parameters, Tensor, int]:
        """Train a block of members as the guide does."""
        return self.guide.train(density, sources, resume, save)

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw from every member as the guide does."""
        return self.guide.draw(state, count, sources)

    def log_prob(self, state: Parameters, position: Tensor) -> Tensor:
        """Log density under each member as the guide has it."""
        return self.guide.log_prob(state, position)

    def __repr__(self) -> str:
        return f"Ensemble({type(self.guide).__name__}, size={self.size})"
