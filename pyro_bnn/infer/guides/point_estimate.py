"""The maximum a posteriori estimate: the network as it is usually trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.guide import Guide

__all__ = ["PointEstimate"]


class PointEstimate(Guide):
    """A mode of the posterior; ``Ensemble(PointEstimate(model), size=M)`` is a deep ensemble.

    What is minimised is the potential energy in unconstrained space, log-Jacobians included: the
    mode of the density that the samplers see. The prior is the weight decay. Every draw is the
    same point (Lakshminarayanan et al. 2017 for the ensemble).

    Parameters
    ----------
    model, training, init_strategy, fail_above
        As for every `Guide`.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro_bnn.infer.guides import Training
    >>> def model(y):
    ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(y)):
    ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> training = Training(epochs=300, batch_size=None, learning_rate=0.1)
    >>> guide = PointEstimate(model, training).fit(torch.ones(3), seed=0)
    >>> round(guide.sample_posterior(1)["mu"].item(), 3)
    0.75
    """

    trainable = ("position",)
    decouples = True

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Repeat the point."""
        position = state["position"]
        return position[:, None].expand(-1, count, -1)
