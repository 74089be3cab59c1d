"""What a model predicts before it has seen data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from pyro_bnn.errors import UserError

__all__ = ["PriorPredictive", "prior_predictive"]


class PriorPredictive(NamedTuple):
    """Predictions of networks drawn from the prior.

    Attributes
    ----------
    mean : Tensor
        Class probabilities ``(draw, row, class)``, the probability of a one or the mean of any
        other likelihood, both ``(draw, row)``.
    y : Tensor
        Values drawn from the likelihood, ``(draw, row, ...)``.
    """

    mean: Tensor
    y: Tensor


def prior_predictive(
    model: Callable[..., Any],
    x: Tensor,
    num_samples: int = 200,
    *,
    name: str = "y",
    seed: int = 0,
) -> PriorPredictive:
    """Draw networks from the prior and predict with each.

    Parameters
    ----------
    model : callable
        ``model(x, y=None)``.
    x : Tensor
        Inputs ``(row, ...)``.
    num_samples : int
        Networks.
    name : str
        Site of the likelihood.
    seed : int
        Of torch's generator, whose state is put back afterwards.

    Raises
    ------
    UserError
        If the model has no such site, or `num_samples` is not positive.

    Examples
    --------
    >>> from pyro_bnn.nn import Normal, gaussian, lift
    >>> bnn = lift(torch.nn.Linear(1, 1), prior=Normal(scale=1.0))
    >>> def model(x, y=None):
    ...     return gaussian(bnn(x), y, noise=0.1)
    >>> prior_predictive(model, torch.linspace(-1, 1, 5)[:, None], 20).mean.shape
    torch.Size([20, 5])
    """
    if num_samples < 1:
        raise UserError(f"prior_predictive: num_samples is {num_samples}, give at least 1")
    means, drawn = [], []
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(seed)
        for _ in range(num_samples):
            nodes: Mapping[str, Any] = poutine.trace(model).get_trace(x).nodes
            if nodes.get(name, {}).get("type") != "sample":
                raise UserError(
                    f"prior_predictive: the model has no site '{name}': give the name of its "
                    "likelihood"
                )
            law = base = nodes[name]["fn"]
            while isinstance(base, dist.Independent):
                base = base.base_dist
            discrete = isinstance(base, dist.Categorical | dist.Bernoulli)
            means.append(base.probs if discrete else law.mean)
            drawn.append(nodes[name]["value"])
    return PriorPredictive(torch.stack(means), torch.stack(drawn))
