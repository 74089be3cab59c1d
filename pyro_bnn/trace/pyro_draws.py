"""Draws, observations and log likelihoods of plain Pyro programs, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.running_statistics import is_statistic


def guide_draws(
    guide: Callable[..., Any], count: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Draw the latent sites of a guide.

    Parameters
    ----------
    guide
        Any Pyro guide; the auxiliary sites of an autoguide are left out, running statistics of
        batch norm are not.
    count
        Number of draws.
    args, kwargs
        What the guide (and its model) is called with.

    Returns
    -------
    dict
        Site name to draws of shape ``(count, *shape)``.
    """
    draws: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for _ in range(count):
            for name, site in _sampled(guide, args, kwargs):
                latent = not site["is_observed"] and not site["infer"].get("is_auxiliary")
                if latent or is_statistic(site):
                    draws.setdefault(name, []).append(site["value"])
    if not draws:
        raise UserError("The guide has no latent sample site: give a guide that samples some.")
    return {name: torch.stack(values) for name, values in draws.items()}


def observations(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Run a model once for what it observes.

    Parameters
    ----------
    model
        The Pyro model.
    args, kwargs
        What it is called with.

    Returns
    -------
    dict
        Observed site name to its value.
    """
    with torch.no_grad():
        sites = list(_sampled(model, args, kwargs))
    return {
        name: site["value"]
        for name, site in sites
        if site["is_observed"] and not is_statistic(site)
    }


def pointwise_log_likelihood(
    model: Callable[..., Any],
    draws: Mapping[str, Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Compute log p(y_i | θ) of each observation under each draw.

    The model runs once a draw, so it need not be written to broadcast over draws.

    Parameters
    ----------
    model
        The Pyro model.
    draws
        Latent site name to draws ``(S, *shape)``.
    args, kwargs
        What the model is called with, the observations among it.

    Returns
    -------
    dict
        Observed site name to ``(S, *batch shape of the site)``.

    Raises
    ------
    UserError
        If the model has a latent site of which there are no draws.
    """
    observed = observations(model, args, kwargs)
    results: dict[str, list[Tensor]] = {name: [] for name in observed}
    with torch.no_grad():
        for index in range(len(next(iter(draws.values())))):
            values = {name: draw[index] for name, draw in draws.items()}
            for name, site in _sampled(poutine.condition(model, values), args, kwargs):
                if name in observed:
                    results[name].append(site["fn"].log_prob(site["value"]))
                elif name not in draws and not is_statistic(site):
                    raise UserError(
                        f"The model samples the site '{name}', of which there are no draws: give "
                        "its draws too, or the model that was sampled."
                    )
    return {name: torch.stack(values) for name, values in results.items()}


def _sampled(
    program: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sample sites of one run, the subsampling of plates left out."""
    with pyro.validation_enabled(False):
        trace = poutine.trace(program).get_trace(*args, **kwargs)
    for name, node in trace.nodes.items():
        site: dict[str, Any] = {**node}
        if site["type"] == "sample" and not site_is_subsample(node):
            site["infer"] = site["infer"] or {}
            if not site["infer"].get("_deterministic") or is_statistic(site):
                yield name, site
