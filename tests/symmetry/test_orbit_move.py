"""The orbit move of flat positions: draws of the prior stay such draws, whatever the prior.

Along orbits the likelihood is constant, so a move that leaves the prior invariant, and the
function alone, leaves every posterior invariant.
"""

from __future__ import annotations

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.nn import Normal, lift
from pyro_bnn.symmetry import OrbitMove, SymmetryGroup, discover

DOUBLE = {"dtype": torch.float64}
INPUTS, UNITS, CLASSES = 3, 4, 3
LEVEL = 1e-4
DRAWS = 4000


def network(x, y, w1, b1, w2):
    """One hidden layer of rectified units, classes out."""
    logits = torch.relu(x @ w1 + b1) @ w2
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


def sample(name, prior, *shape):
    return pyro.sample(name, prior.expand(shape).to_event(len(shape)))


def number(value):
    return torch.tensor(value, **DOUBLE)


def plain(x, y, *, temperature=1.0):
    del temperature
    w1 = sample("w1", dist.Normal(number(0.0), 0.8), INPUTS, UNITS)
    b1 = sample("b1", dist.Laplace(number(0.0), 0.6), UNITS)
    w2 = sample("w2", dist.StudentT(5.0, number(0.0), 0.7), UNITS, CLASSES)
    network(x, y, w1, b1, w2)


def hierarchical(x, y):
    """Sample the scale of the first layer, and one for each class of the last layer."""
    tau = pyro.sample("tau", dist.HalfCauchy(number(1.0)))
    spread = sample("spread", dist.LogNormal(number(0.0), 0.5), CLASSES)
    w1 = pyro.sample("w1", dist.Normal(torch.zeros(INPUTS, UNITS, **DOUBLE), tau).to_event(2))
    b1 = sample("b1", dist.Normal(number(0.0), 0.5), UNITS)
    w2 = pyro.sample("w2", dist.Normal(torch.zeros(UNITS, CLASSES, **DOUBLE), spread).to_event(2))
    network(x, y, w1, b1, w2)


def not_centred(x, y):
    """Multiply the weights of a layer by a scale that is a site: scales act on it too."""
    tau = pyro.sample("tau", dist.HalfNormal(number(1.5)))
    w1 = sample("w1", dist.Normal(number(0.0), 1.0), INPUTS, UNITS)
    b1 = sample("b1", dist.Normal(number(0.0), 1.0), UNITS)
    w2 = sample("w2", dist.Normal(number(0.0), 0.5), UNITS, CLASSES)
    network(x, y, tau * w1, tau * b1, w2)


MODELS = {"plain": plain, "hierarchical": hierarchical, "not centred": not_centred}


@functools.cache
def built(name) -> tuple[LogDensity, SymmetryGroup]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, INPUTS, generator=generator, **DOUBLE)
    density = LogDensity(MODELS[name], x, torch.arange(7) % CLASSES)
    return density, discover(density)


def statistics(density, position):
    """Compute what a wrong scale, exponent or Jacobian would move, ``(draw,)`` each."""
    values = density.constrain(position)
    inward = (values["w1"].square().sum(1) + values["b1"].square())[:, 0].log()
    outward = values["w2"].square().sum(2)[:, 0].log()
    found = {
        "in": inward,
        "out": outward,
        "ratio": inward - outward,
        "product": inward + outward,
        "bias": values["b1"][:, 1].abs(),
        "one weight": values["w2"][:, 0, 0],
        "class mean": values["w2"].mean(2)[:, 1],
        "class difference": values["w2"][:, 1, 0] - values["w2"][:, 1, 1],
    }
    if "tau" in values:
        found["tau"] = values["tau"].log()
        found["tau and weights"] = found["tau"] - inward
    return {key: value.numpy() for key, value in found.items()}


def smallest_pvalue(density, moved, reference):
    a, b = statistics(density, moved), statistics(density, reference)
    return min(stats.ks_2samp(a[key], b[key]).pvalue for key in a)


def prior_values(name, rng, temperature=1.0):
    """Draw from the prior raised to 1 / temperature, in the unconstrained coordinates."""
    wide = temperature**0.5
    values = {
        "w1": rng.normal(0, wide, (DRAWS, INPUTS, UNITS)),
        "b1": rng.normal(0, wide, (DRAWS, UNITS)),
        "w2": rng.normal(0, 0.5 * wide, (DRAWS, UNITS, CLASSES)),
    }
    if name == "plain":
        df = 6.0 / temperature - 1
        values["w1"] *= 0.8
        values["b1"] = rng.laplace(0, 0.6 * temperature, (DRAWS, UNITS))
        values["w2"] = 0.7 * (5 / df) ** 0.5 * rng.standard_t(df, (DRAWS, UNITS, CLASSES))
    if name == "hierarchical":
        values["tau"] = np.abs(rng.standard_cauchy(DRAWS))
        values["spread"] = np.exp(0.5 * rng.normal(size=(DRAWS, CLASSES)))
        values["w1"] *= values["tau"][:, None, None]
        values["b1"] *= 0.5
        values["w2"] *= 2 * values["spread"][:, None]
    if name == "not centred":
        # (p(tau) tau) ** (1 / T) is the density of log tau: tau squared is gamma.
        values["tau"] = rng.gamma(0.5 / temperature, 2 * 1.5**2 * temperature, DRAWS) ** 0.5
    return {site: torch.tensor(value) for site, value in values.items()}


def prior_positions(name, seed, temperature=1.0):
    rng = np.random.default_rng(seed)
    return built(name)[0].unconstrain(prior_values(name, rng, temperature))


@pytest.mark.parametrize("name", MODELS)
def test_draws_of_the_prior_stay_draws_of_the_prior(name):
    density, group = built(name)
    move = OrbitMove(density, group, sweeps=2)
    start = prior_positions(name, 0)
    moved = move(start, torch.Generator().manual_seed(1))
    assert smallest_pvalue(density, moved, prior_positions(name, 2)) > LEVEL
    unmoved = statistics(density, start)["ratio"]
    assert np.corrcoef(unmoved, statistics(density, moved)["ratio"])[0, 1] < 0.9
    before, after = density.log_likelihood(start), density.log_likelihood(moved)
    torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_the_check_sees_a_wrong_volume(name):
    density, group = built(name)
    move = OrbitMove(density, group)
    move._counts = {key: count + 2 for key, count in move._counts.items()}
    moved = move(prior_positions(name, 0), torch.Generator().manual_seed(1))
    assert smallest_pvalue(density, moved, prior_positions(name, 2)) < LEVEL


@pytest.mark.parametrize(
    ("name", "temperature"), [("plain", 0.3), ("plain", 2.5), ("not centred", 2.0)]
)
def test_a_tempered_posterior_is_left_invariant(name, temperature):
    density, group = built(name)
    tempered = density.tempered(likelihood=0.5, posterior=temperature)
    start, reference = (prior_positions(name, seed, temperature) for seed in (0, 2))
    moved = OrbitMove(tempered, group, sweeps=2)(start, torch.Generator().manual_seed(1))
    assert smallest_pvalue(density, moved, reference) > LEVEL
    untempered = OrbitMove(density, group, sweeps=2)(start, torch.Generator().manual_seed(1))
    assert smallest_pvalue(density, untempered, reference) < LEVEL


def test_the_orbit_is_drawn_from_again_whatever_it_was():
    """One call forgets the scale that a unit had: corrupted draws are prior draws again."""
    name = "hierarchical"
    density, group = built(name)
    start = prior_positions(name, 0)
    element = group.sample(torch.Generator().manual_seed(3), DRAWS, spread=1.0)
    element.added.clear()  # what the model adds has no prior of its own here
    corrupted = density.unconstrain(element.apply(density.constrain(start)))
    reference = prior_positions(name, 2)
    assert smallest_pvalue(density, corrupted, reference) < LEVEL
    repaired = OrbitMove(density, group)(corrupted, torch.Generator().manual_seed(1))
    assert smallest_pvalue(density, repaired, reference) > LEVEL


def test_positions_keep_their_type_and_other_sites_their_bits():
    density, group = built("hierarchical")
    start = prior_positions("hierarchical", 0)
    kept = start.clone()
    moved = OrbitMove(density, group)(start, torch.Generator().manual_seed(0))
    again = OrbitMove(density, group)(start, torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)
    assert torch.equal(start, kept)
    assert moved.dtype == start.dtype
    before, after = density.unflatten(start), density.unflatten(moved)
    assert torch.equal(before["tau"], after["tau"])
    assert torch.equal(before["spread"], after["spread"])


class Attention(nn.Module):
    """Two heads of self-attention, averaged over the places of a sequence."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


NETWORKS = {
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.LeakyReLU(),
            nn.Flatten(), nn.Linear(4, CLASSES),
        ),
        (1, 6, 6),
    ),
    "layer norm": (
        lambda: nn.Sequential(
            nn.Linear(INPUTS, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, CLASSES)
        ),
        (INPUTS,),
    ),
    "attention": (Attention, (3, 4)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_generator_leaves_prior_and_likelihood_alone(name):
    make, shape = NETWORKS[name]
    bnn = lift(make(), prior=Normal(scale=1.0))

    def classes(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, *shape, generator=generator)
    density = LogDensity(classes, x, torch.arange(7) % CLASSES)
    move = OrbitMove(density, discover(density), sweeps=2)
    start = torch.randn(400, density.dim, generator=generator)
    moved = move(start, generator)
    before, after = density.log_likelihood(start), density.log_likelihood(moved)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    for site, values in density.unflatten(moved).items():
        assert stats.kstest(values.double().flatten().numpy(), "norm").pvalue > LEVEL, site
    same = (moved == start).all(0).float().mean()
    assert same < (0.3 if name == "attention" else 0.01)


def discovered(model):
    density = LogDensity(model, torch.randn(7, INPUTS, **DOUBLE), torch.arange(7) % CLASSES)
    return density, discover(density)


def shrunk(x, y):
    """Each hidden unit has a scale of its own; the last layer is centred off zero."""
    tau = sample("tau", dist.HalfNormal(number(1.0)), UNITS)
    w1 = pyro.sample("w1", dist.Normal(torch.zeros(INPUTS, UNITS, **DOUBLE), tau).to_event(2))
    b1 = sample("b1", dist.Normal(number(0.0), 1.0), UNITS)
    w2 = sample("w2", dist.Normal(number(0.3), 1.0), UNITS, CLASSES)
    network(x, y, w1, b1, w2)


def test_what_cannot_move_is_named():
    density, group = discovered(shrunk)
    move = OrbitMove(density, group)
    assert move.held == {
        "scale of h0": "the Normal prior of site 'w2' is not centred at zero",
        "h0": "the prior is not invariant",
    }
    moved = move(density.initial_position(5, torch.Generator().manual_seed(0)), torch.Generator())
    assert moved.shape == (5, density.dim)


def other_prior(x, y):
    w1 = sample("w1", dist.Normal(number(0.0), 1.0), INPUTS, UNITS)
    b1 = sample("b1", dist.Gumbel(number(0.0), 1.0), UNITS)
    w2 = sample("w2", dist.Normal(number(0.0), 1.0), UNITS, CLASSES)
    network(x, y, w1, b1, w2)


def needed_elsewhere(x, y):
    w1 = sample("w1", dist.Normal(number(0.0), 1.0), INPUTS, UNITS)
    b1 = sample("b1", dist.Normal(number(0.0), 1.0), UNITS)
    w2 = sample("w2", dist.Normal(number(0.0), 1.0), UNITS, CLASSES)
    pyro.sample("norm", dist.Normal(w1.square().sum(), 1.0))
    network(x, y, w1, b1, w2)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (other_prior, "site 'b1' has a Gumbel prior"),
        (needed_elsewhere, "the prior of site 'norm' depends on site 'w1'"),
    ],
)
def test_permutations_act_where_scales_cannot(model, reason):
    density, group = discovered(model)
    move = OrbitMove(density, group)
    assert move.held == {"scale of h0": reason}
    start = density.initial_position(50, torch.Generator().manual_seed(0))
    before = density.constrain(start)["w1"]
    after = density.constrain(move(start, torch.Generator().manual_seed(1)))["w1"]
    assert not torch.equal(before, after)
    torch.testing.assert_close(before.sort(-1).values, after.sort(-1).values)


def test_a_move_of_nothing_or_of_another_model_is_refused():
    density, group = discovered(other_prior)
    nothing = dict(group.preserves_prior, h0=False)
    shiftless = group.__class__(
        **{**group.__dict__, "preserves_prior": nothing, "translations": {}}
    )
    with pytest.raises(UserError, match=r"nothing to move.*Gumbel"):
        OrbitMove(density, shiftless)
    with pytest.raises(UserError, match="bare module"):
        OrbitMove(density, group.__class__(**{**group.__dict__, "preserves_prior": {}}))
    with pytest.raises(UserError, match="b1"):
        OrbitMove(density, group.__class__(**{**group.__dict__, "shapes": {"b1": (9,)}}))
    with pytest.raises(UserError, match="sweeps"):
        OrbitMove(density, group, sweeps=0)
