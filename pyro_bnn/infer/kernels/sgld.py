"""Stochastic-gradient Langevin dynamics (Welling & Teh 2011)."""

from __future__ import annotations

import torch

from pyro_bnn.infer.kernels.stochastic_gradient import (
    StochasticGradientKernel,
    StochasticState,
    normal_like,
)

__all__ = ["SGLD"]


class SGLD(StochasticGradientKernel):
    """Stochastic-gradient Langevin dynamics over a batch of chains.

    With the potential energy U, minus the tempered log posterior summed over all data, a step is
    ``x - h grad U(x) + sqrt(2 h) noise``. The step size h is a learning rate; it is half of the
    epsilon of Welling & Teh 2011, equation 4, so that `SGHMC` at friction 1 is the same kernel.
    The bias of its draws falls in proportion to h.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model.
    step_size : float
        The learning rate h; stable below 2 over the largest curvature of U.
    batch_size, schedule, steps_per_draw, control_variates, init_strategy
        See `pyro_bnn.infer.kernels.StochasticGradientKernel`.

    Examples
    --------
    >>> import torch, pyro, pyro.distributions as dist
    >>> from pyro_bnn.infer import MCMC, SGLD
    >>> def model(y):
    ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(y)):
    ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> kernel = SGLD(model, step_size=1e-3, batch_size=10, steps_per_draw=5)
    >>> mcmc = MCMC(kernel, num_samples=20, num_chains=4, disable_progbar=True)
    >>> mcmc.run(torch.ones(100))
    >>> mcmc.get_samples(group_by_chain=True)["mean"].shape
    torch.Size([4, 20])
    """

    def _move(
        self, state: StochasticState, generator: torch.Generator, *, noisy: bool
    ) -> StochasticState:
        position = state.position - state.step_size * state.gradient
        if noisy:
            noise = normal_like(position, generator)
            position = position + (2 * state.step_size).sqrt() * noise
        return state._replace(position=position)
