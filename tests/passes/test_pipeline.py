"""All passes together: what they return, on every model there is, is what was traced."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.func import grad_and_value, vmap
from torch.fx import GraphModule

from pyro_bnn import LogDensity, lift
from pyro_bnn.errors import UserError
from pyro_bnn.graph import trace_graph
from pyro_bnn.handlers import without_validation
from pyro_bnn.nn import Laplace, Normal, categorical, gaussian
from pyro_bnn.passes.pipeline import optimise, prepare_for_compiler

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.py"))
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}
ROWS, CHAINS = 300, 5


def data(dtype, *shape):
    x = torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = x.reshape(ROWS, -1)[:, 0].sin()
    return x.to(dtype), y.to(dtype)


def lifted(net, *shape, classes=False):
    def build(dtype):
        x, y = data(dtype, *shape)
        bnn = lift(copy.deepcopy(net).to(dtype), prior=Normal(scale="fan_in"))
        if classes:
            y = (y > 0).long() + (y > 0.5).long()

        def model(x, y=None):
            return categorical(bnn(x), y) if classes else gaussian(bnn(x), y)

        return LogDensity(model, x, y)

    return build


def cnn(dtype):
    x, y = data(dtype, 1, 8, 8)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(24, 3),
    ).to(dtype)
    bnn = lift(net, prior={"*.bias": Normal(scale=1.0), "*": Laplace(scale="fan_in")})
    return LogDensity(lambda x, y=None: categorical(bnn(x), y), x, (y > 0).long())


def hierarchical(dtype):
    def model(x, y=None):
        one = x.new_ones(())
        hidden = x
        for layer, shape in enumerate([(4, 40), (40, 40), (40, 1)]):
            scale = pyro.sample(f"scale{layer}", dist.HalfCauchy(one))
            weight = dist.Normal(x.new_zeros(shape), scale).to_event(2)
            hidden = torch.tanh(hidden @ pyro.sample(f"w{layer}", weight))
        noise = pyro.sample("noise", dist.HalfNormal(one))
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Normal(hidden.squeeze(-1), noise), obs=y)

    return LogDensity(model, *data(dtype, 4))


def by_hand(dtype):
    """Biases on either side, first layers that share an input, constants that differ."""

    def model(x, y=None):
        zeros = x.new_zeros
        w1 = pyro.sample("w1", dist.Normal(zeros(4, 6), 1.0).to_event(2))
        b1 = pyro.sample("b1", dist.Normal(zeros(6) + 0.5, 2.0).to_event(1))
        w2 = pyro.sample("w2", dist.Normal(zeros(4, 6), 0.3).to_event(2))
        w3 = pyro.sample("w3", dist.Laplace(zeros(6), 0.3).to_event(1))
        hidden = torch.tanh(b1 + x @ w1) * torch.relu(x @ w2 + b1)
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Normal(hidden @ w3, 0.4), obs=y)

    return LogDensity(model, *data(dtype, 4))


def writes_into_a_tensor(dtype):
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(x.new_zeros(4), 1.0).to_event(1))
        mean = x @ w
        mean = mean.clone().mul_(2.0)
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Normal(mean, 0.4), obs=y)

    return LogDensity(model, *data(dtype, 4))


def of_the_file(path):
    def build(dtype):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            script = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(script)
            try:
                train = script.data().train
            except UserError as error:
                pytest.skip(str(error))
            x, y = train.x[:ROWS], train.y[:ROWS]
            cast = [t.to(dtype) if t.is_floating_point() else t for t in (x, y)]
            return LogDensity(script.model, *cast)
        finally:
            torch.set_default_dtype(before)

    return build


BUILDS = {
    "tanh": lifted(
        nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1)),
        6,
    ),
    "relu": lifted(nn.Sequential(nn.Linear(40, 9), nn.ReLU(), nn.Linear(9, 3)), 40, classes=True),
    "no bias": lifted(nn.Sequential(nn.Linear(6, 9, bias=False), nn.GELU(), nn.Linear(9, 1)), 6),
    "narrow": lifted(nn.Linear(2, 1), 2),
    "cnn": cnn,
    "hierarchical": hierarchical,
    "by hand": by_hand,
    "in place": writes_into_a_tensor,
    **{path.stem: of_the_file(path) for path in MODELS},
}


def traced(density):
    """Return the batched value and gradient as they are traced."""

    def function(z):
        with without_validation():
            gradient, value = vmap(grad_and_value(lambda q: density._potential(q, None)))(z)
        return value, gradient

    return trace_graph(function, torch.zeros(CHAINS, density.dim, dtype=density.dtype))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", BUILDS)
def test_rewritten_graphs_compute_what_was_traced(name, dtype):
    density = BUILDS[name](dtype)
    plain = traced(density)
    generator = torch.Generator().manual_seed(0)
    for passes in (optimise, prepare_for_compiler):
        rewritten = GraphModule(plain, copy.deepcopy(plain.graph))
        passes(rewritten, torch.device("cpu"))
        for scale in (0.1, 1.0):
            z = scale * torch.randn(CHAINS, density.dim, dtype=torch.float64, generator=generator)
            z = z.to(dtype)
            before = z.clone()
            with torch.no_grad():
                expected = plain(z)
                for _ in range(2):
                    # Twice: memory that is written over must not be what the next call reads.
                    for one, other in zip(rewritten(z), expected, strict=True):
                        error = (one - other).abs().amax() / other.abs().amax()
                        assert float(error) < TOLERANCE[dtype]
            assert torch.equal(z, before)


@pytest.mark.parametrize("name", ["tanh", "cnn", "by hand", "in place"])
def test_densities_take_the_rewritten_graph(name):
    density = BUILDS[name](torch.float32)
    density.value_and_grad(torch.zeros(2, density.dim))
    assert density.gradient_path == "ATen graph, eager"


@pytest.mark.parametrize(
    ("name", "taken", "left"),
    [
        ("tanh", ["lay_out_products", "fold_biases", "use_onednn"], ["use_log_softmax"]),
        ("relu", ["lay_out_products", "use_log_softmax"], ["unfold_convolutions"]),
        ("no bias", ["lay_out_products"], ["fold_biases", "pool_data_last"]),
        ("cnn", ["unfold_convolutions", "pool_data_last", "use_log_softmax"], ["fold_biases"]),
    ],
)
def test_the_passes_that_rewrote_a_gradient_are_named(name, taken, left):
    density = BUILDS[name](torch.float32)
    assert density.gradient_passes == ()
    density.value_and_grad(torch.zeros(CHAINS, density.dim))
    assert set(taken) <= set(density.gradient_passes)
    assert not set(left) & set(density.gradient_passes)
    assert len(set(density.gradient_passes)) == len(density.gradient_passes)


def test_a_pass_that_changes_nothing_is_not_named():
    graph = traced(BUILDS["relu"](torch.float32))
    assert "use_log_softmax" in optimise(graph, torch.device("cpu"))
    assert "use_log_softmax" not in optimise(graph, torch.device("cpu"))
