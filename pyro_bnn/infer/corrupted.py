"""Predictions on corrupted inputs, averaged over draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_bnn.corruption import SEVERITIES, Corruption
from pyro_bnn.errors import UserError
from pyro_bnn.infer.predict import predict_in_chunks
from pyro_bnn.logdensity import LogDensity

__all__ = ["CorruptedPredictions", "predict_corrupted"]


class CorruptedPredictions(NamedTuple):
    """The posterior predictive distribution of each datum at each severity.

    Attributes
    ----------
    log_predictive : Tensor
        Log of the mean density over draws, ``(severity, data)``.
    mean : Tensor
        Mean over draws of the class probabilities ``(severity, data, class)``, of the probability
        of a one or of the mean, both ``(severity, data)``.
    """

    log_predictive: Tensor
    mean: Tensor


def predict_corrupted(
    density: LogDensity,
    values: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    corruption: Corruption,
    seed: int = 0,
) -> CorruptedPredictions:
    """Average the predictions of draws on inputs corrupted at each of the five severities.

    Parameters
    ----------
    density : LogDensity
        Of the model ``model(x, y)``.
    values : mapping
        Constrained site values ``(draw, *shape)``; draws whose predictions hold NaN are left out.
    x, y : Tensor
        Inputs and targets ``(data, ...)``.
    corruption : callable
        From inputs, severity and a generator to inputs of the same shape.
    seed : int
        Of the generator; it starts anew at each severity, so that noise only grows.

    Raises
    ------
    UserError
        If the corruption changes the inputs' shape or makes them NaN or infinite.
    """
    log_predictive, means = [], []
    for severity in SEVERITIES:
        generator = torch.Generator(x.device).manual_seed(seed)
        changed = corruption(x, severity, generator)
        if changed.shape != x.shape or not bool(changed.isfinite().all()):
            raise UserError(
                f"a corruption of shape {tuple(x.shape)} gave shape {tuple(changed.shape)} or "
                "numbers that are not finite: return finite inputs of the same shape"
            )
        found = predict_in_chunks(density, values, changed, y)
        fine = found.log_predictive.isnan().logical_not().all(1)
        mean = found.mean.flatten(1)
        # A law without a mean, such as Cauchy's, has none at any input.
        fine &= mean.isfinite().all(1) | mean.isnan().all(1)
        # NaN of no draw at all: the logarithm of nothing less that of nothing.
        kept = fine.sum().to(found.log_predictive.dtype)
        log_predictive.append(found.log_predictive[fine].logsumexp(0) - kept.log())
        means.append(found.mean[fine].mean(0))
    return CorruptedPredictions(torch.stack(log_predictive), torch.stack(means))
