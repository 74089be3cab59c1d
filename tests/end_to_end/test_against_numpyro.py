"""The function-space posterior of `models/diabetes_mlp.py` against NumPyro's NUTS."""

from __future__ import annotations

import json
from pathlib import Path

import arviz_base
import arviz_stats
import numpy as np
import pytest
import torch

from pyro_bnn import LogDensity
from pyro_bnn.infer import HMC, MCMC, NUTS
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.predict import predict

HERE = Path(__file__).parent
REFERENCE = HERE / "data" / "diabetes_numpyro.json"
MODEL = HERE.parent.parent / "models" / "diabetes_mlp.py"


@pytest.mark.parametrize(
    ("method", "draws"),
    [
        pytest.param("hmc", 200, id="hmc"),
        pytest.param("nuts", 300, id="nuts", marks=pytest.mark.slow),
    ],
)
def test_means_and_deviations_at_50_test_inputs_agree(method: str, draws: int) -> None:
    # Written by benchmarks/numpyro_reference.py.
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    inputs = len(reference["mean"])
    script = ModelScript.load(MODEL)
    train, test = script.data.train, script.data.test
    density = LogDensity(script.model, train.x, train.y)
    kernel = (
        HMC(density, num_steps=24, jitter=0.5)
        if method == "hmc"
        else NUTS(density, max_tree_depth=6)
    )
    mcmc = MCMC(kernel, draws, warmup_steps=150, num_chains=16, seed=1, disable_progbar=True)
    mcmc.run()
    samples = {name: value.double() for name, value in mcmc.get_samples().items()}
    x, y = test.x[:inputs].double(), test.y[:inputs].double()
    script.model.__globals__["net"].double()
    exact = LogDensity(script.model, train.x.double(), train.y.double())
    mean = predict(exact, samples, x, y).mean
    outputs = torch.as_tensor(mean).unflatten(0, (16, draws)).numpy()

    tree = arviz_base.convert_to_datatree({"f": outputs})
    ess = arviz_stats.ess(tree)["f"].to_numpy()
    rhat = arviz_stats.rhat(tree)["f"].to_numpy()
    assert ess.min() > 400
    assert rhat.max() < 1.05
    for name, ours in (("mean", outputs.mean((0, 1))), ("sd", outputs.std((0, 1), ddof=1))):
        error = arviz_stats.mcse(tree, method=name)["f"].to_numpy()
        total = np.hypot(error, reference[f"{name}_mcse"])
        assert np.abs(ours - np.array(reference[name])).max() > 0
        z = (ours - np.array(reference[name])) / total
        assert np.abs(z).max() < 5, f"{name}: largest z-score {np.abs(z).max():.1f}"
