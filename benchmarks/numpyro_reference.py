"""A reference posterior of `models/diabetes_mlp.py` by NumPyro's NUTS, for the test suite.

Run: python benchmarks/numpyro_reference.py (needs the extra ``bench``; writes
tests/end_to_end/data/diabetes_numpyro.json)

The model is written again in JAX, from the description of the script: a 10-16-16-1 tanh network,
normal priors of deviation 1 / sqrt(fan-in) on weights and biases, half-normal noise. What is
kept are the mean and the standard deviation of the network's output at the first 50 test inputs,
each with its Monte-Carlo standard error.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import arviz_base
import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from pyro_bnn.infer.cli.script import ModelScript

ROOT = Path(__file__).parent.parent
WIDTHS = (10, 16, 16, 1)
CHAINS, WARMUP, DRAWS, INPUTS = 8, 1000, 2000, 50


def network(x: jax.Array) -> jax.Array:
    """Sample weights and biases, layer by layer, and run the network."""
    for layer, (fan_in, fan_out) in enumerate(pairwise(WIDTHS)):
        scale = fan_in**-0.5
        shape = (fan_out, fan_in)
        weight = numpyro.sample(f"w{layer}", dist.Normal(0, scale).expand(shape).to_event(2))
        bias = numpyro.sample(f"b{layer}", dist.Normal(0, scale).expand((fan_out,)).to_event(1))
        x = x @ weight.T + bias
        if layer < len(WIDTHS) - 2:
            x = jnp.tanh(x)
    return x[:, 0]


def model(x: jax.Array, y: jax.Array, x_test: jax.Array) -> None:
    """Observe the training targets; record the function at the test inputs."""
    everywhere = network(jnp.concatenate([x, x_test]))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.deterministic("f", everywhere[len(x) :])
    numpyro.sample("y", dist.Normal(everywhere[: len(x)], noise), obs=y)


def main() -> None:
    """Sample and write the reference."""
    data = ModelScript.load(ROOT / "models" / "diabetes_mlp.py").data
    x, y = jnp.array(data.train.x.numpy()), jnp.array(data.train.y.numpy())
    x_test = jnp.array(data.test.x[:INPUTS].numpy())
    mcmc = MCMC(
        NUTS(model, max_tree_depth=8),
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = time.perf_counter()
    mcmc.run(jax.random.PRNGKey(0), x, y, x_test)
    drawn = np.asarray(mcmc.get_samples(group_by_chain=True)["f"], dtype=np.float64)
    tree = arviz_base.convert_to_datatree({"f": drawn})

    def statistic(function, **options: str) -> np.ndarray:
        return function(tree, **options)["f"].to_numpy()

    rhat, ess = statistic(arviz_stats.rhat), statistic(arviz_stats.ess)
    print(
        f"{time.perf_counter() - start:.0f} s, R-hat median {np.median(rhat):.4f} maximum "
        f"{rhat.max():.4f}, bulk ESS minimum {ess.min():.0f}"
    )
    reference = {
        "sampler": f"NumPyro {numpyro.__version__} NUTS, {CHAINS} chains of {WARMUP} + {DRAWS}",
        "rhat_max": float(rhat.max()),
        "ess_min": float(ess.min()),
        "mean": drawn.mean((0, 1)).tolist(),
        "mean_mcse": statistic(arviz_stats.mcse, method="mean").tolist(),
        "sd": drawn.std((0, 1), ddof=1).tolist(),
        "sd_mcse": statistic(arviz_stats.mcse, method="sd").tolist(),
    }
    target = ROOT / "tests" / "end_to_end" / "data" / "diabetes_numpyro.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
