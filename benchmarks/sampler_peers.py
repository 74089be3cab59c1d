"""The peers of `benchmarks/samplers.py`: Pyro's NUTS, NumPyro's NUTS, BlackJAX's MCLMC.

Each peer samples the network of a model script, written again in NumPyro from its description, and
yields log predictive probabilities of the test rows, ``(chain, draw, row)``. What JAX compiles is
compiled before the clock starts, one function for all steps of a peer, the same shapes throughout.
"""

from __future__ import annotations

import contextlib
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
from numpyro.infer import NUTS
from numpyro.infer.util import initialize_model
from sampler_run import LEAST_DRAWS, Run, Unfinished

from pyro_bnn import Data, LogDensity
from pyro_bnn.infer.predict import predict

BLOCK = 25
NUTS_BLOCK = 5


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
) -> Run | Unfinished:
    """All chains vectorized, five steps at a time until the budget is spent.

    NumPyro's own `MCMC` compiles again from call to call; here its kernel is driven by one compiled
    block of steps, in warm-up and after, so that the seconds hold no compilation.
    """
    arguments = _arguments(name, data)
    warmup = -(-warmup // NUTS_BLOCK) * NUTS_BLOCK
    kernel = NUTS(_model, max_tree_depth=8)
    began = time.perf_counter()
    keys = jax.random.split(jax.random.PRNGKey(seed), chains)
    # With it the starts are found and one gradient of each is computed.
    state = kernel.init(keys, warmup, None, arguments, {})
    values_of = jax.vmap(kernel.postprocess_fn(arguments, {}))

    def step(state: Any, _: None) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        state = kernel.sample(state, arguments, {})
        return state, (values_of(state.z)["log_predictive"], state.num_steps)

    def steps(state: Any) -> tuple[Any, Any]:
        return jax.lax.scan(step, state, None, length=NUTS_BLOCK)

    block = jax.jit(steps).lower(state).compile()
    compiling = time.perf_counter() - began

    start = time.perf_counter()
    blocks: list[np.ndarray] = []
    made, gradients, warmup_gradients = 0, 0.0, 0.0
    while len(blocks) < 2 or time.perf_counter() - start < budget:
        state, (values, counts) = block(state)
        made += NUTS_BLOCK
        # Every draw costs the batch its longest tree.
        gradients += float(np.asarray(counts).max(1).sum())
        if made > warmup:
            blocks.append(np.asarray(values).swapaxes(0, 1))
        else:
            warmup_gradients = gradients
            if time.perf_counter() - start > budget:
                seconds = time.perf_counter() - start
                return Unfinished(seconds, compiling, made, warmup, chains, gradients)
    seconds = time.perf_counter() - start
    return Run(np.concatenate(blocks, 1), seconds, compiling, gradients, warmup_gradients)


def blackjax_mclmc(
    name: str, data: Data, chains: int, warmup: int, seed: int, budget: float
) -> Run:
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


class _CountingNUTS(pyro.infer.NUTS):
    """Pyro's NUTS, which tells how many gradients it has computed."""

    gradients = 0

    def _initialize_model_properties(self, model_args: Any, model_kwargs: Any) -> None:
        super()._initialize_model_properties(model_args, model_kwargs)
        potential = self.potential_fn

        def counted(params: dict[str, torch.Tensor]) -> torch.Tensor:
            self.gradients += 1
            return potential(params)

        self.potential_fn = counted


def pyro_nuts(
    density: LogDensity, data: Data, warmup: int, seed: int, budget: float
) -> Run | Unfinished:
    """One chain of Pyro's own NUTS, stopped when the budget is spent."""
    drawn: list[dict[str, torch.Tensor]] = []
    spent = {"steps": 0, "warmup": 0}
    start = time.perf_counter()

    def watch(kernel: Any, params: dict[str, torch.Tensor], stage: str, count: int) -> None:
        if stage == "Sample":
            drawn.append({site: value.clone() for site, value in params.items()})
        else:
            spent.update(steps=count + 1, warmup=kernel.gradients)
        if time.perf_counter() - start > budget:
            raise KeyboardInterrupt

    pyro.set_rng_seed(seed)
    kernel = _CountingNUTS(density.model, max_tree_depth=8)
    mcmc = pyro.infer.MCMC(
        kernel, num_samples=10**6, warmup_steps=warmup, hook_fn=watch, disable_progbar=True
    )
    with contextlib.suppress(KeyboardInterrupt):
        mcmc.run(*density.args, **density.kwargs)
    seconds = time.perf_counter() - start
    if len(drawn) < LEAST_DRAWS:
        return Unfinished(
            seconds, 0.0, spent["steps"] + len(drawn), warmup, 1, float(kernel.gradients)
        )
    stacked = {site: torch.stack([one[site] for one in drawn]) for site in drawn[0]}
    values = density.constrain(density.flatten(stacked))
    found = predict(density, values, data.test.x, data.test.y)
    return Run(
        found.log_predictive[None].numpy(), seconds, 0.0, float(kernel.gradients), spent["warmup"]
    )
