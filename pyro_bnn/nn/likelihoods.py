"""Likelihoods for the outputs of a network, each one statement in a model script."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_bnn.errors import UserError

__all__ = ["binary", "categorical", "gaussian", "heteroscedastic", "poisson", "student_t"]


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
        If the number of labels is not that of the rows of logits, or these are several a row.
    """
    logits = _column(logits, y, name)
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
        If `mean` has several values a row, or another number of rows than `y`.
    """
    mean = _column(mean, y, name)
    deviation = _noise(noise, mean)
    with pyro.plate("data", mean.shape[0]):
        value: Tensor = pyro.sample(name, dist.Normal(mean, deviation), obs=y)
    return value


def heteroscedastic(output: Tensor, y: Tensor | None = None, *, name: str = "y") -> Tensor:
    """Observe real values ``(data,)`` with normal noise whose deviation the network gives too.

    Parameters
    ----------
    output : Tensor
        ``(data, 2)``: the mean, and the logarithm of the noise's standard deviation.
    y : Tensor, optional
        Observed values ``(data,)``.
    name : str
        Site of the observations.

    Raises
    ------
    UserError
        If `output` has not two columns, or the number of values is not that of its rows.
    """
    if output.ndim != 2 or output.shape[1] != 2:
        raise UserError(
            f"site '{name}': heteroscedastic noise needs a network of two outputs, mean and log "
            f"deviation; this one gives {tuple(output.shape)}"
        )
    _same_rows(output, y, name)
    with pyro.plate("data", output.shape[0]):
        law = dist.Normal(output[:, 0], output[:, 1].exp())
        value: Tensor = pyro.sample(name, law, obs=y)
    return value


def student_t(
    mean: Tensor,
    y: Tensor | None = None,
    *,
    df: float = 4.0,
    noise: dist.TorchDistribution | float | None = None,
    name: str = "y",
) -> Tensor:
    """Observe real values ``(data,)`` with heavy-tailed noise, for data with outliers.

    Parameters
    ----------
    mean : Tensor
        The network's output, ``(data,)`` or ``(data, 1)``.
    y : Tensor, optional
        Observed values ``(data,)``.
    df : float
        Degrees of freedom.
    noise : Distribution or float, optional
        The noise's scale, as the deviation of `gaussian`.
    name : str
        Site of the observations.

    Raises
    ------
    UserError
        If `df` is not positive, or `mean` has several values a row, or other rows than `y`.
    """
    if df <= 0:
        raise UserError(f"site '{name}': df is {df}, give a number > 0")
    mean = _column(mean, y, name)
    scale = _noise(noise, mean)
    with pyro.plate("data", mean.shape[0]):
        value: Tensor = pyro.sample(name, dist.StudentT(df, mean, scale), obs=y)
    return value


def poisson(log_rate: Tensor, y: Tensor | None = None, *, name: str = "y") -> Tensor:
    """Observe counts ``(data,)`` given the logarithm of their rate, ``(data,)`` or ``(data, 1)``.

    Raises
    ------
    UserError
        If the number of counts is not that of the rows, or `log_rate` has several values a row.
    """
    log_rate = _column(log_rate, y, name)
    y = None if y is None else y.to(log_rate.dtype)
    with pyro.plate("data", log_rate.shape[0]):
        count: Tensor = pyro.sample(name, dist.Poisson(log_rate.exp()), obs=y)
    return count


def _column(output: Tensor, y: Tensor | None, name: str) -> Tensor:
    """One value a row, ``(data,)``."""
    if output.ndim == 0 or output.numel() != len(output):
        raise UserError(
            f"site '{name}' needs one output of the network a row; this one gives "
            f"{tuple(output.shape)}"
        )
    _same_rows(output, y, name)
    return output.reshape(output.shape[0])


def _noise(noise: dist.TorchDistribution | float | None, like: Tensor) -> Tensor | float:
    """Scale of the noise: known, or the site ``noise``."""
    if isinstance(noise, int | float):
        return noise
    one = torch.ones((), dtype=like.dtype, device=like.device)
    drawn: Tensor = pyro.sample("noise", dist.HalfNormal(one) if noise is None else noise)
    return drawn


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
