"""Gradients of the ELBO of a mean field with its noise in the outputs of layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_bnn.errors import UserError
from pyro_bnn.handlers import batchable, sum_log_likelihood
from pyro_bnn.infer.guides.layer_noise import find_layers, noise_size, run_noisily
from pyro_bnn.infer.guides.seeds import normal
from pyro_bnn.logdensity import LogDensity, Rows
from pyro_bnn.sites import is_identity

__all__ = ["LayerEstimator"]


class LayerEstimator:
    """The negative ELBO of independent normals and its gradient, for a batch of members.

    ``-E[log p(y | w)] - kl_weight (E[log p(w)] + H)``: the first expectation by noise in the
    layers, that of a normal prior's log density and the entropy H in closed form, that of any
    other prior by the drawn weights. Sites that are no weights of layers are drawn.

    Parameters
    ----------
    density : LogDensity
        The posterior.
    kl_weight : float
        Multiplies the divergence from the prior.
    local : bool
        Whether to draw outputs where a weight meets a row once; else flipout throughout.

    Raises
    ------
    UserError
        If a batch norm in training mode makes the likelihood of a row depend on the others.
    """

    def __init__(self, density: LogDensity, kl_weight: float, *, local: bool) -> None:
        if density.statistics:
            raise UserError(
                f"'{next(iter(density.statistics))}' joins the rows of a batch, and noise that is "
                "drawn for each row by itself would change the loss: take estimator='plain', or "
                "call .eval() on the network"
            )
        self._density = density
        self._kl_weight = kl_weight
        self._local = local
        self._graphs: dict[Any, Callable[..., tuple[Tensor, Tensor]]] = {}
        self._layers: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graphs, which another process traces for itself."""
        return {**self.__dict__, "_graphs": {}}

    def gradient(
        self,
        loc: Tensor,
        log_scale: Tensor,
        particles: int,
        indices: Rows | None,
        sources: Sequence[torch.Generator],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses ``(member,)`` and their gradients by `loc` and `log_scale` ``(member, dim)``."""
        members, dim = loc.shape
        rows = () if indices is None else (indices,) if isinstance(indices, Tensor) else indices
        key = (members * particles, loc.dtype, *(tensor.shape for tensor in rows))
        if key not in self._layers:
            firsts = tuple(tensor[0] for tensor in rows)
            one: Rows | None = firsts[0] if isinstance(indices, Tensor) else firsts or None
            self._layers[key] = find_layers(self._density, one, local=self._local)
        layers = self._layers[key]
        count = rows[0].shape[1] if rows else self._density.rows
        drawn = normal(sources, (particles, dim + noise_size(layers, count)), loc).flatten(0, 1)
        inputs = [torch.cat([loc, log_scale], 1), *rows]
        inputs = [tensor.repeat_interleave(particles, 0) for tensor in inputs]
        inputs.insert(1, drawn)
        if key not in self._graphs:
            self._graphs[key] = self._trace(layers, isinstance(indices, Tensor), inputs)
        with torch.no_grad():
            slope, value = self._graphs[key](*inputs)
        slope = slope.unflatten(0, (members, particles)).mean(1)
        loss = value.unflatten(0, (members, particles)).mean(1)
        return loss, slope[:, :dim], slope[:, dim:]

    def _trace(
        self, layers: Mapping[str, Any], numbered: bool, inputs: Sequence[Tensor]
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        def loss(parameters: Tensor, drawn: Tensor, *rows: Tensor) -> Tensor:
            chosen: Rows | None = (rows[0] if numbered else rows) if rows else None
            return self._loss(layers, parameters, drawn, chosen)

        batched = vmap(grad_and_value(loss))

        def run(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            with batchable(), self._density.arithmetic():
                slope, value = batched(*tensors)
            return slope, value

        graph: Callable[..., tuple[Tensor, Tensor]] = make_fx(run)(*inputs)
        return graph

    def _loss(
        self, layers: Mapping[str, Any], parameters: Tensor, drawn: Tensor, indices: Rows | None
    ) -> Tensor:
        density = self._density
        loc, log_scale = parameters.chunk(2)
        scale = log_scale.exp()
        position = loc + scale * drawn[: density.dim]
        means, deviations, free = (
            {name: part[0] for name, part in density.unflatten(flat[None]).items()}
            for flat in (loc, scale, position)
        )
        values = {name: site.transform(free[name]) for name, site in density.sites.items()}
        trace, share = run_noisily(
            density, layers, values, means, deviations, drawn[density.dim :], indices
        )
        fit = sum_log_likelihood(trace, density.sites, density.of_rows, share)
        fit = fit / density.likelihood_temperature
        prior = loc.new_zeros(())
        for name, site in density.sites.items():
            plain = is_identity(site.transform)
            known = _expected(trace.nodes[name], means[name], deviations[name]) if plain else None
            if known is None:
                jacobian = site.transform.log_abs_det_jacobian(free[name], values[name]).sum()
                known = trace.nodes[name]["log_prob_sum"] + (0.0 if plain else jacobian)
            prior = prior + known
        entropy = log_scale.sum() + 0.5 * density.dim * (1 + math.log(2 * math.pi))
        warmth = density.posterior_temperature
        return -fit / warmth - self._kl_weight * (prior / warmth + entropy)


def _expected(node: Mapping[str, Any], loc: Tensor, scale: Tensor) -> Tensor | None:
    """Mean of a normal prior's log density under ``Normal(loc, scale)``; None for other priors."""
    base = node["fn"]
    while isinstance(base, dist.Independent):
        base = base.base_dist
    if type(base) is not dist.Normal or node["scale"] != 1.0 or node["mask"] is not None:
        return None
    square = (scale.square() + (loc - base.loc).square()) / base.scale.square()
    terms: Tensor = 0.5 * square + torch.log(base.scale) + 0.5 * math.log(2 * math.pi)
    return -terms.sum()
