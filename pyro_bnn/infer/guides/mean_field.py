"""Mean-field Gaussian variational inference: Bayes by backprop (Blundell et al. 2015)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.layer_estimator import LayerEstimator
from pyro_bnn.infer.guides.seeds import normal
from pyro_bnn.infer.guides.training import Training
from pyro_bnn.infer.guides.variational import Variational
from pyro_bnn.logdensity import LogDensity, Rows

__all__ = ["ESTIMATORS", "MeanField"]

ESTIMATORS = ("plain", "local", "flipout")


class MeanField(Variational):
    """Independent normal distributions of the unconstrained weights.

    Of a Gaussian posterior with precision matrix P it finds the variances ``1 / P_ii``, which are
    at most the marginal ones.

    One draw of the weights for all rows of a minibatch (``"plain"``) makes the rows' gradients
    err together. ``"local"`` draws the outputs of linear layers instead of their weights (the
    local reparametrisation of Kingma et al. 2015), and ``"flipout"`` gives each row signs of its
    own (Wen et al. 2018); the loss is the same in expectation, its gradient less noisy. A weight
    that meets a row more than once, as in a convolution or a layer over tokens, is treated by
    flipout with ``"local"`` too: its outputs share a weight, and drawing each by itself would
    change the loss.

    Parameters
    ----------
    model, training, initial_scale, kl_weight, particles, init_strategy, fail_above
        As for `Variational`.
    estimator : str
        ``"plain"``, ``"local"`` or ``"flipout"``; the last two need weights in linear or
        convolution layers.

    Raises
    ------
    UserError
        If the estimator is unknown; in `fit`, if the model has no layer that it could use.
    """

    trainable = ("loc", "log_scale")

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        training: Training | None = None,
        *,
        estimator: str = "plain",
        initial_scale: float = 0.05,
        kl_weight: float = 1.0,
        particles: int = 1,
        init_strategy: Callable[..., Any] | None = None,
        fail_above: float | None = None,
    ) -> None:
        super().__init__(
            model,
            training,
            initial_scale=initial_scale,
            kl_weight=kl_weight,
            particles=particles,
            init_strategy=init_strategy,
            fail_above=fail_above,
        )
        if estimator not in ESTIMATORS:
            raise UserError(
                f"MeanField: estimator {estimator!r} is unknown; known are "
                f"{', '.join(map(repr, ESTIMATORS))}"
            )
        self.estimator = estimator
        self._noisy: tuple[LogDensity, LayerEstimator] | None = None

    def start(self, position: Tensor, density: LogDensity) -> Parameters:
        """Start around a position with the initial scale."""
        return {
            "loc": position,
            "log_scale": torch.full_like(position, math.log(self.initial_scale)),
        }

    def gradient(
        self,
        parameters: Parameters,
        density: LogDensity,
        indices: Rows | None,
        sources: Sequence[torch.Generator],
    ) -> tuple[Tensor, Parameters]:
        """Negative ELBO of each member and its gradient, by the estimator."""
        if self.estimator == "plain":
            return super().gradient(parameters, density, indices, sources)
        if self._noisy is None or self._noisy[0] is not density:
            found = LayerEstimator(density, self.kl_weight, local=self.estimator == "local")
            self._noisy = (density, found)
        loss, by_loc, by_scale = self._noisy[1].gradient(
            parameters["loc"], parameters["log_scale"], self.particles, indices, sources
        )
        return loss, {"loc": by_loc, "log_scale": by_scale}

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw ``loc + scale * e``."""
        noise = normal(sources, (count, state["loc"].shape[1]), state["loc"])
        return state["loc"][:, None] + state["log_scale"].exp()[:, None] * noise

    def log_prob(self, state: Parameters, position: Tensor) -> Tensor:
        """Sum the normal log densities of the weights."""
        log_scale = state["log_scale"][:, None]
        standard = (position - state["loc"][:, None]) * torch.exp(-log_scale)
        terms = 0.5 * standard.square() + log_scale + 0.5 * math.log(2 * math.pi)
        return -terms.sum(2)
