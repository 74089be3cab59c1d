"""How many draws an independent one takes, from a few draws of many chains."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["integrated_time"]


def integrated_time(values: Tensor) -> Tensor:
    """Integrated autocorrelation times, one a coordinate.

    Each chain is centred on its own mean, autocovariances are averaged over the chains, and their
    sum ends with the first pair that is not positive (Geyer 1992).

    Parameters
    ----------
    values : Tensor
        ``(draw, chain, dim)``, at least four draws.

    Returns
    -------
    Tensor
        ``(dim,)``, in draws, at least one.
    """
    draws = len(values)
    centred = values - values.mean(0)
    spectrum = torch.fft.rfft(centred, n=2 * draws, dim=0)
    covariance = torch.fft.irfft(spectrum.abs() ** 2, n=2 * draws, dim=0)[:draws].mean(1)
    correlation = covariance / covariance[0].clamp(min=1e-30)
    pairs = correlation[: 2 * (draws // 2)].unflatten(0, (-1, 2)).sum(1)
    positive = (pairs > 0).to(pairs).cumprod(0)
    time: Tensor = (2 * (pairs * positive).sum(0) - 1).clamp(min=1.0)
    return time
