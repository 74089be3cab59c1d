"""Variational guides: minimise the Kullback-Leibler divergence through draws of the guide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.infer.guides.training import Training
from pyro_bnn.logdensity import LogDensity, Rows

__all__ = ["Variational"]


class Variational(Guide):
    """What the Gaussian variational guides share.

    A draw is ``z = g(parameters, noise)`` (Kingma & Welling 2014). The gradient of the negative
    ELBO, ``E[U(z) + log q(z)]`` with U the potential energy, follows that path only,

    ``(dU/dz + d log q/dz) dz/d parameters``,

    the score of q left out since its expectation is zero (Roeder et al. 2017): as q comes close to
    the posterior, the noise of this gradient vanishes. It needs dU/dz and no graph through the
    model.

    Parameters
    ----------
    model, training, init_strategy, fail_above
        As for every `Guide`.
    initial_scale : float
        Standard deviation of every weight at the start, around a draw from the prior.
    kl_weight : float
        Multiplies the divergence from the prior in the ELBO; below 1 the posterior is cold.
    particles : int
        Draws of each step.

    Raises
    ------
    UserError
        If a number is out of range.
    """

    has_density = True

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        training: Training | None = None,
        *,
        initial_scale: float = 0.05,
        kl_weight: float = 1.0,
        particles: int = 1,
        init_strategy: Callable[..., Any] | None = None,
        fail_above: float | None = None,
    ) -> None:
        super().__init__(model, training, init_strategy=init_strategy, fail_above=fail_above)
        if initial_scale <= 0 or kl_weight <= 0 or particles < 1:
            raise UserError(
                f"{type(self).__name__}: initial_scale and kl_weight have to be positive, "
                "particles at least 1"
            )
        self.initial_scale = initial_scale
        self.kl_weight = kl_weight
        self.particles = particles
        self._tempered: tuple[LogDensity, LogDensity] | None = None

    @property
    def gradients_a_minibatch(self) -> int:
        """One for each particle."""
        return self.particles

    def gradient(
        self,
        parameters: Parameters,
        density: LogDensity,
        indices: Rows | None,
        sources: Sequence[torch.Generator],
    ) -> tuple[Tensor, Parameters]:
        """Negative ELBO of each member and its gradient along the path of the draws."""
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        drawn = self.draw(leaves, self.particles, sources)
        position = drawn.detach()
        rows = _repeated(indices, self.particles)
        value, slope = self._density_at_weight(density).value_and_grad(position.flatten(0, 1), rows)

        position.requires_grad_()
        log_prob = self.log_prob(parameters, position)
        (score,) = torch.autograd.grad(log_prob.sum(), position)
        shape = position.shape
        direction = (slope.reshape(shape) + score) * (self.kl_weight / self.particles)
        found = torch.autograd.grad(drawn, list(leaves.values()), direction)
        loss = (value.reshape(shape[:2]) + log_prob.detach()).mean(1) * self.kl_weight
        return loss, dict(zip(leaves, found, strict=True))

    def _density_at_weight(self, density: LogDensity) -> LogDensity:
        """Return a density of which `kl_weight` times the potential is the tempered one."""
        if self.kl_weight == 1:
            return density
        if self._tempered is None or self._tempered[0] is not density:
            tempered = density.tempered(
                likelihood=density.likelihood_temperature * self.kl_weight,
                posterior=density.posterior_temperature,
            )
            self._tempered = (density, tempered)
        return self._tempered[1]


def _repeated(indices: Rows | None, count: int) -> Rows | None:
    """Give every particle the rows of its member."""
    if indices is None or isinstance(indices, Tensor):
        return None if indices is None else indices.repeat_interleave(count, 0)
    return tuple(tensor.repeat_interleave(count, 0) for tensor in indices)
