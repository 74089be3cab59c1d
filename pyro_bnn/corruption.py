"""Corruptions of inputs at five severities, for judging robustness.

After Hendrycks and Dietterich (2019), whose corruptions of images are graded in five steps; the
grades here are those of the tables below. A model script declares them in its ``Data``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pyro_bnn.errors import UserError

__all__ = ["SEVERITIES", "Corruption", "image_corruptions", "table_corruptions"]

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]
"""From inputs ``(row, *features)``, a severity of 1 to 5 and a generator to inputs."""

SEVERITIES = (1, 2, 3, 4, 5)

# Standard deviation, and photons at full brightness, and share of pixels, ...: by severity.
_NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)
_PHOTONS = (250.0, 100.0, 50.0, 25.0, 12.0)
_IMPULSES = (0.01, 0.03, 0.06, 0.11, 0.17)
_BLUR = (0.3, 0.5, 0.7, 0.9, 1.2)
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTRAST = (0.75, 0.6, 0.45, 0.3, 0.15)
_DEVIATIONS = (0.1, 0.25, 0.5, 1.0, 2.0)
_MISSING = (0.05, 0.1, 0.2, 0.3, 0.5)


def image_corruptions(
    shape: Sequence[int], low: float = 0.0, high: float = 1.0
) -> dict[str, Corruption]:
    """Return the corruptions of images.

    Parameters
    ----------
    shape
        Of an image, ``(channel, height, width)`` or ``(height, width)``; inputs may be flat.
    low, high
        Values of black and white. What noise and brightness push beyond them is clipped.

    Returns
    -------
    dict
        In units of ``high - low``: ``gaussian noise`` (deviation 0.04 to 0.26), ``shot noise``
        (Poisson with 250 to 12 photons at white), ``impulse noise`` (1 to 17 % of pixels black or
        white), ``gaussian blur`` (deviation 0.3 to 1.2 pixels), ``brightness`` (0.1 to 0.5
        added), ``contrast`` (0.75 to 0.15 of the distance to the image's mean).

    Raises
    ------
    UserError
        If the shape has not two or three axes, or `high` is not above `low`.

    Examples
    --------
    >>> x = torch.tensor([[0.2, 0.4], [0.0, 1.0]])  # two images of one by two pixels
    >>> contrast = image_corruptions((1, 2))["contrast"]
    >>> contrast(x, 3, torch.Generator())[1].tolist()
    [0.2750000059604645, 0.7250000238418579]
    """
    if len(shape) not in (2, 3) or not high > low:
        raise UserError(
            f"image_corruptions: shape {tuple(shape)} and values {low} to {high} are not of "
            "images: give (channel, height, width) and the values of black and white"
        )
    channels, height, width = (1, *shape)[-3:]

    def on_unit(change: Corruption) -> Corruption:
        def corrupt(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
            if x[0].numel() != channels * height * width:
                raise UserError(
                    f"inputs of shape {tuple(x.shape[1:])} are not images of shape {tuple(shape)}"
                )
            unit = (x.reshape(-1, channels, height, width) - low) / (high - low)
            changed = change(unit, severity - 1, generator)
            return (low + (high - low) * changed).reshape(x.shape)

        return corrupt

    changes: Mapping[str, Corruption] = {
        "gaussian noise": _gaussian_noise,
        "shot noise": _shot_noise,
        "impulse noise": _impulse_noise,
        "gaussian blur": _gaussian_blur,
        "brightness": _brightness,
        "contrast": _contrast,
    }
    return {name: on_unit(change) for name, change in changes.items()}


def table_corruptions(train: Tensor) -> dict[str, Corruption]:
    """Return the corruptions of tables of numbers.

    Parameters
    ----------
    train
        Training inputs ``(row, *features)``: their means and deviations are the units.

    Returns
    -------
    dict
        ``feature noise`` (normal, of 0.1 to 2 deviations of each feature) and ``missing values``
        (5 to 50 % of the entries replaced by the feature's training mean).
    """
    mean, deviation = train.mean(0), train.std(0)

    def noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
        return x + _DEVIATIONS[severity - 1] * deviation.to(x) * _normal(x, generator)

    def missing(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
        return torch.where(_uniform(x, generator) < _MISSING[severity - 1], mean.to(x), x)

    return {"feature noise": noise, "missing values": missing}


def _gaussian_noise(x: Tensor, grade: int, generator: torch.Generator) -> Tensor:
    return (x + _NOISE[grade] * _normal(x, generator)).clamp(0, 1)


def _shot_noise(x: Tensor, grade: int, generator: torch.Generator) -> Tensor:
    photons = _PHOTONS[grade]
    return (torch.poisson(x.clamp(0, 1) * photons, generator) / photons).clamp(0, 1)


def _impulse_noise(x: Tensor, grade: int, generator: torch.Generator) -> Tensor:
    chance = _uniform(x, generator)
    share = _IMPULSES[grade]
    return torch.where(chance < share / 2, 0.0, torch.where(chance > 1 - share / 2, 1.0, x))


def _gaussian_blur(x: Tensor, grade: int, generator: torch.Generator) -> Tensor:
    """Blur along each axis; pixels beyond the edge are those on it."""
    deviation = _BLUR[grade]
    reach = math.ceil(4 * deviation)
    at = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (at / deviation) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    groups = x.shape[1]
    x = functional.conv2d(
        functional.pad(x, (reach, reach, 0, 0), "replicate"), kernel, groups=groups
    )
    padded = functional.pad(x, (0, 0, reach, reach), "replicate")
    return functional.conv2d(padded, kernel.transpose(2, 3), groups=groups)


def _brightness(x: Tensor, grade: int, generator: torch.Generator) -> Tensor:
    return (x + _BRIGHTNESS[grade]).clamp(0, 1)


def _contrast(x: Tensor, grade: int, generator: torch.Generator) -> Tensor:
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + _CONTRAST[grade] * (x - mean)


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)


def _uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
