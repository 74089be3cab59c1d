"""Likelihoods for the outputs of a network, each one statement in a model script."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_bnn.errors import UserError

__all__ = ["binary", "categorical", "gaussian"]


def categorical(logits: Tensor, y: Tensor | None = None, *, name: str = "y") -> Tensor:
    """Observe class labels ``(data,)`` given logits ``(data, classes)``.

    Raises
    ------
    UserError
        If the number of labels is not that of the rows of logits.
    """
    _same_rows(logits, y, name)
    with pyro.plate("data", logits.shape[0]):
        label: Tensor = pyro.sample(name, dist.Categorical(logits=logits), obs=y)
    return label


def binary(logits: Tensor, y: Tensor | None = None, *, name: str = "y") -> Tensor:
    """Observe labels 0 or 1 ``(data,)`` given one logit a row, ``(data,)`` or ``(data, 1)``.

    Raises
    ------
    UserError
        If the number of labels is not that of the rows of logits.
    """
    _same_rows(logits, y, name)
    logits = logits.reshape(logits.shape[0])
    # Labels of another dtype would be refused (integers) or lower the precision (float32).
    y = None if y is None else y.to(logits.dtype)
    with pyro.plate("data", logits.shape[0]):
        label: Tensor = pyro.sample(name, dist.Bernoulli(logits=logits), obs=y)
    return label


def gaussian(
    mean: Tensor,
    y: Tensor | None = None,
    *,
    noise: dist.TorchDistribution | float | None = None,
    name: str = "y",
) -> Tensor:
    """Observe real values ``(data,)`` with normal noise of known or learned deviation.

    Parameters
    ----------
    mean : Tensor
        The network's output, ``(data,)`` or ``(data, 1)``.
    y : Tensor, optional
        Observed values ``(data,)``.
    noise : Distribution or float, optional
        Prior of the noise's standard deviation, sampled at the site ``noise``; or its known
        value. A half-normal of scale 1 by default, for targets that are standardised.
    name : str
        Site of the observations.

    Raises
    ------
    UserError
        If the number of values is not that of the rows of `mean`.
    """
    _same_rows(mean, y, name)
    mean = mean.reshape(mean.shape[0])
    if noise is None:
        noise = dist.HalfNormal(torch.ones((), dtype=mean.dtype, device=mean.device))
    deviation = noise if isinstance(noise, int | float) else pyro.sample("noise", noise)
    with pyro.plate("data", mean.shape[0]):
        value: Tensor = pyro.sample(name, dist.Normal(mean, deviation), obs=y)
    return value


def _same_rows(output: Tensor, y: Tensor | None, name: str) -> None:
    if y is None or y.shape == output.shape[:1]:
        return
    observed = f"site '{name}' observes {tuple(y.shape)}"
    if len(y) != len(output):
        raise UserError(
            f"{observed} but the network's output is {tuple(output.shape)}: x and y need the same "
            "number of rows"
        )
    # It would broadcast to one term for every pair of rows.
    raise UserError(f"{observed}: give one value a row, {tuple(output.shape[:1])}")
