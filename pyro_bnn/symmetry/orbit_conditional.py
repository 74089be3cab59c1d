"""Draws of log scales from their conditional density, which is a sum of exponentials.

``exp(k u - sum_e m_e exp(2 e u) / 2)`` is log-concave. It is drawn exactly by rejection from a
flat top with two exponential tails that touch the log density on either side of the mode
(Devroye 1986, chapter VII). With one exponent of each sign and equal size, ``exp(2 u)`` is
generalised inverse Gaussian.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Masses", "draw"]

Masses = dict[float, Tensor]


def draw(count: Tensor, masses: Masses, generator: torch.Generator | None) -> Tensor:
    """Draw from densities ``exp(count u - sum_e masses[e] exp(2 e u) / 2)``.

    Parameters
    ----------
    count : Tensor
        ``(batch, size)``, the linear coefficient.
    masses : dict of float to Tensor
        ``(batch, size)`` for each exponent.
    generator : torch.Generator, optional

    Returns
    -------
    Tensor
        ``(batch, size)``; zero where the density is improper, or a mass is not finite.
    """
    shape = count.shape
    flat = {e: m.reshape(-1) for e, m in masses.items()}
    slope = count.reshape(-1)
    proper = torch.stack([(m > 0) & m.isfinite() for m in flat.values()]).all(0)
    only_up = all(e > 0 for e in flat) & bool((slope <= 0).any())
    only_down = all(e < 0 for e in flat) & bool((slope >= 0).any())
    if only_up or only_down:
        proper = torch.zeros_like(proper)
    flat = {e: m.where(proper, 1.0) for e, m in flat.items()}
    mode = _mode(slope, flat)
    top = _log_density(mode, slope, flat)
    left, right = _shoulder(mode, top, slope, flat, -1.0), _shoulder(mode, top, slope, flat, 1.0)
    up, down = _derivative(left, slope, flat), _derivative(right, slope, flat)
    start = left + (top - _log_density(left, slope, flat)) / up
    end = right + (top - _log_density(right, slope, flat)) / down
    areas = torch.stack([1 / up, end - start, -1 / down])
    result = torch.zeros_like(slope)
    waiting = proper.nonzero().flatten()
    while len(waiting):
        uniform = _uniform(3, waiting, generator)
        share = areas[:, waiting]
        pick = uniform[0] * share.sum(0)
        tail = uniform[1].clamp_min(1e-300).log()
        low, high = start[waiting], end[waiting]
        in_left, in_middle = pick < share[0], pick < share[0] + share[1]
        proposal = torch.where(
            in_left,
            low + tail / up[waiting],
            torch.where(in_middle, low + uniform[1] * (high - low), high + tail / down[waiting]),
        )
        cover = top[waiting] + torch.where(in_left | ~in_middle, tail, 0.0)
        here = {e: m[waiting] for e, m in flat.items()}
        level = _log_density(proposal, slope[waiting], here)
        accepted = uniform[2].log() <= level - cover
        result[waiting[accepted]] = proposal[accepted]
        waiting = waiting[~accepted]
    return result.reshape(shape)


def _uniform(rows: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw uniforms ``(rows, len(like))`` where the generator lives, for where `like` lives."""
    device = like.device if generator is None else generator.device
    shape = (rows, len(like))
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
    return drawn.to(like.device)


def _log_density(u: Tensor, slope: Tensor, masses: Masses) -> Tensor:
    return slope * u - sum(
        (0.5 * m * (2 * e * u).exp() for e, m in masses.items()), torch.zeros_like(u)
    )


def _derivative(u: Tensor, slope: Tensor, masses: Masses) -> Tensor:
    return slope - sum((e * m * (2 * e * u).exp() for e, m in masses.items()), torch.zeros_like(u))


def _mode(slope: Tensor, masses: Masses) -> Tensor:
    """Find the mode by safeguarded Newton steps."""
    u = torch.zeros_like(slope)
    for _ in range(200):
        gradient = _derivative(u, slope, masses)
        bend = sum(
            (2 * e * e * m * (2 * e * u).exp() for e, m in masses.items()), torch.zeros_like(u)
        )
        step = (gradient / bend.clamp_min(1e-300)).clamp(-0.7, 0.7)
        u = u + step
        if bool((step.abs() < 1e-10).all()):
            break
    return u


def _shoulder(mode: Tensor, top: Tensor, slope: Tensor, masses: Masses, side: float) -> Tensor:
    """Find a point on one side of the mode where the log density is about one lower."""
    bend = sum(
        (2 * e * e * m * (2 * e * mode).exp() for e, m in masses.items()), torch.zeros_like(mode)
    )
    width = (2 / bend).sqrt()
    for _ in range(60):
        drop = top - _log_density(mode + side * width, slope, masses)
        width = torch.where(drop > 2, width / 1.5, torch.where(drop < 0.5, width * 1.3, width))
        if bool(((drop <= 2) & (drop >= 0.5)).all()):
            break
    return mode + side * width
