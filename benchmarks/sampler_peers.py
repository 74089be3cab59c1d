"""The peers of `benchmarks/samplers.py`: Pyro's NUTS, NumPyro's NUTS, BlackJAX's MCLMC.

Each peer samples the network of a model script, written again in NumPyro from its description, and
yields log predictive probabilities of the test rows, ``(chain, draw, row)``. Compilation is timed
apart by a first call; what NumPyro compiles again in later calls is in its seconds.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro.infer
import torch
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import initialize_model

from pyro_bnn import Data, LogDensity
from pyro_bnn.infer.predict import predict

BLOCK = 25


class Run(NamedTuple):
    """What one sampler did."""

    log_predictive: np.ndarray
    seconds: float
    compiling: float
    gradients: float
    warmup_gradients: float


class Network(NamedTuple):
    """A model script in JAX: widths, activation, gain of the prior's deviation, likelihood."""

    widths: tuple[int, ...]
    activation: Any
    gain: float
    classify: bool


NETWORKS = {
    "diabetes_mlp": Network((10, 16, 16, 1), jnp.tanh, 1.0, False),
    "digits_mlp": Network((64, 32, 10), jax.nn.relu, 4.0, True),
}


def _model(network: Network, x: jax.Array, y: jax.Array, x_test: Any, y_test: Any) -> None:
    both = jnp.concatenate([x, x_test])
    for layer, (fan_in, fan_out) in enumerate(pairwise(network.widths)):
        scale = network.gain * fan_in**-0.5
        prior = dist.Normal(0, scale)
        weight = numpyro.sample(f"w{layer}", prior.expand((fan_out, fan_in)).to_event(2))
        bias = numpyro.sample(f"b{layer}", prior.expand((fan_out,)).to_event(1))
        both = both @ weight.T + bias
        if layer < len(network.widths) - 2:
            both = network.activation(both)
    if network.classify:
        likelihood = dist.Categorical(logits=both[: len(x)])
        at_test = dist.Categorical(logits=both[len(x) :])
    else:
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        likelihood = dist.Normal(both[: len(x), 0], noise)
        at_test = dist.Normal(both[len(x) :, 0], noise)
    numpyro.deterministic("log_predictive", at_test.log_prob(y_test))
    numpyro.sample("y", likelihood, obs=y)


def _arguments(name: str, data: Data) -> tuple[Any, ...]:
    parts = (data.train.x, data.train.y, data.test.x, data.test.y)
    return (NETWORKS[name], *(jnp.asarray(part.numpy()) for part in parts))


def numpyro_nuts(
    name: str, data: Data, chains: int, warmup: int, seed: int, budget: float
) -> Run | None:
    """All chains vectorized; blocks of draws until the budget is spent."""
    arguments = _arguments(name, data)
    mcmc = MCMC(
        NUTS(_model, max_tree_depth=8),
        num_warmup=warmup,
        num_samples=BLOCK,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    extra = ("num_steps",)
    # One call of each kind compiles most of what the next ones need.
    began = time.perf_counter()
    mcmc.warmup(
        jax.random.PRNGKey(10_000 + seed), *arguments, extra_fields=extra, collect_warmup=True
    )
    mcmc.run(jax.random.PRNGKey(0), *arguments, extra_fields=extra)
    compiling = time.perf_counter() - began
    mcmc.post_warmup_state = None

    start = time.perf_counter()
    mcmc.warmup(jax.random.PRNGKey(seed), *arguments, extra_fields=extra, collect_warmup=True)
    warmup_steps = _waited(mcmc)
    blocks, steps = [], 0.0
    while not blocks or time.perf_counter() - start < budget:
        mcmc.run(mcmc.post_warmup_state.rng_key, *arguments, extra_fields=extra)
        mcmc.post_warmup_state = mcmc.last_state
        blocks.append(np.asarray(mcmc.get_samples(group_by_chain=True)["log_predictive"]))
        steps += _waited(mcmc)
    seconds = time.perf_counter() - start
    return Run(np.concatenate(blocks, 1), seconds, compiling, warmup_steps + steps, warmup_steps)


def _waited(mcmc: MCMC) -> float:
    """Gradients of the batch: every draw costs its longest tree."""
    steps = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["num_steps"])
    return float(steps.max(0).sum())


def blackjax_mclmc(
    name: str, data: Data, chains: int, warmup: int, seed: int, budget: float
) -> Run | None:
    """Every chain tunes itself, then draws every ten steps, under vmap."""
    arguments = _arguments(name, data)
    initial = initialize_model(jax.random.PRNGKey(0), _model, model_args=arguments)
    unflatten = jax.flatten_util.ravel_pytree(initial.param_info.z)[1]

    def log_density(position: jax.Array) -> jax.Array:
        return -initial.potential_fn(unflatten(position))

    # BlackJAX tunes for three tenths of the length that it is told, a third of which is repeated.
    length = 10 * warmup * 10 // 3
    kernel = blackjax.mcmc.mclmc.build_kernel()

    def begin(key: jax.Array) -> Any:
        first, second, third = jax.random.split(key, 3)
        start = initialize_model(first, _model, model_args=arguments).param_info.z
        position = jax.flatten_util.ravel_pytree(start)[0]
        state = blackjax.mcmc.mclmc.init(position, log_density, second)
        return blackjax.mclmc_find_L_and_step_size(
            kernel, length, state, third, logdensity_fn=log_density
        )[:2]

    def draw(key: jax.Array, state: Any, parameters: Any) -> tuple[Any, jax.Array]:
        def step(state: Any, key: jax.Array) -> tuple[Any, None]:
            moved, _ = kernel(
                key,
                state,
                log_density,
                parameters.inverse_mass_matrix,
                parameters.L,
                parameters.step_size,
            )
            return moved, None

        def kept(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, _ = jax.lax.scan(step, state, jax.random.split(key, 10))
            values = initial.postprocess_fn(unflatten(state.position))
            return state, values["log_predictive"]

        return jax.lax.scan(kept, state, jax.random.split(key, BLOCK))

    keys = jax.random.split(jax.random.PRNGKey(seed), chains)
    began = time.perf_counter()
    first = jax.jit(jax.vmap(begin)).lower(keys).compile()
    shapes = jax.eval_shape(jax.vmap(begin), keys)
    later = jax.jit(jax.vmap(draw)).lower(keys, *shapes).compile()
    compiling = time.perf_counter() - began

    start = time.perf_counter()
    state, parameters = jax.block_until_ready(first(keys))
    blocks: list[np.ndarray] = []
    while not blocks or time.perf_counter() - start < budget:
        keys = jax.vmap(lambda key: jax.random.split(key)[0])(keys)
        state, values = later(keys, state, parameters)
        blocks.append(np.asarray(values))
    seconds = time.perf_counter() - start
    tuning = 2 * length * (0.1 + 0.1 + 0.1 / 3 + 0.1 / 3 + 0.1)
    return Run(
        np.concatenate(blocks, 1), seconds, compiling, tuning + 20 * BLOCK * len(blocks), tuning
    )


def pyro_nuts(density: LogDensity, data: Data, warmup: int, seed: int, budget: float) -> Run | None:
    """One chain of Pyro's own NUTS, stopped when the budget is spent; None if still warming up."""
    drawn: list[dict[str, torch.Tensor]] = []
    start = time.perf_counter()

    def watch(kernel: Any, params: dict[str, torch.Tensor], stage: str, count: int) -> None:
        if stage == "Sample":
            drawn.append({site: value.clone() for site, value in params.items()})
        if time.perf_counter() - start > budget:
            raise KeyboardInterrupt

    pyro.set_rng_seed(seed)
    mcmc = pyro.infer.MCMC(
        pyro.infer.NUTS(density.model, max_tree_depth=8),
        num_samples=10**6,
        warmup_steps=warmup,
        hook_fn=watch,
        disable_progbar=True,
    )
    try:
        mcmc.run(*density.args, **density.kwargs)
    except KeyboardInterrupt:
        seconds = time.perf_counter() - start
    if len(drawn) < 4:
        return None
    stacked = {site: torch.stack([one[site] for one in drawn]) for site in drawn[0]}
    values = density.constrain(density.flatten(stacked))
    found = predict(density, values, data.test.x, data.test.y)
    return Run(found.log_predictive[None].numpy(), seconds, 0.0, float("nan"), float("nan"))
