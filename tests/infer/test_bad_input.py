"""Chains that die, runs that are hopeless, and chains that do not fit into memory."""

from __future__ import annotations

import functools
import json

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer import HMC, MCMC, SGHMC, SGLD
from pyro_bnn.infer.adaptation.mass_matrix import PooledVariance
from pyro_bnn.infer.adaptation.warmup import Warmup
from pyro_bnn.infer.cli.app import infer
from pyro_bnn.infer.cli.telling import told_in_a_sentence
from pyro_bnn.infer.dead_chains import DeadChains
from pyro_bnn.infer.kernels.hamiltonian import Info
from pyro_bnn.infer.settings import SGLDSettings
from pyro_bnn.trace import open_trace

X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X @ torch.tensor([1.0, -2.0], dtype=torch.float64)


def regression(x, y):
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(2), 2.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, 0.5), obs=y)


@functools.cache
def density():
    return LogDensity(regression, X, Y)


def mcmc(kernel, **settings):
    settings = {"num_samples": 20, "warmup_steps": 0, "num_chains": 4, "seed": 3, **settings}
    return MCMC(kernel, disable_progbar=True, **settings)


class Poisoned(SGLD):
    """SGLD whose chain 1 is NaN from step 7 on."""

    def _move(self, state, generator, *, noisy):
        state = super()._move(state, generator, noisy=noisy)
        if int(state.steps) < 7:
            return state
        position = state.position.clone()
        position[1] = torch.nan
        return state._replace(position=position)


def test_one_dead_chain_is_named_and_frozen_and_the_rest_go_on(tmp_path):
    options = {"step_size": 1e-3, "batch_size": 10}
    healthy = mcmc(SGLD(density(), **options))
    healthy.run()
    wounded = mcmc(Poisoned(density(), **options), run_dir=tmp_path, segment_draws=4)
    wounded.run()
    assert wounded.progress.dead == [1]
    assert healthy.progress.dead == []
    found, expected = (m.get_samples(group_by_chain=True)["weight"] for m in (wounded, healthy))
    others = [0, 2, 3]
    assert torch.equal(found[others], expected[others])
    assert torch.equal(found[1, :7], expected[1, :7])
    # Frozen where it was last finite, each such draw a divergence.
    assert torch.equal(found[1, 7:], expected[1, 6].expand(13, 2))
    assert wounded.progress.divergences == 13
    with open_trace(tmp_path) as trace:
        stats = trace["sample_stats"].load()
    assert stats["diverging"].values.sum(1).tolist() == [0, 13, 0, 0]
    assert stats["acceptance_rate"].values.sum(1).tolist() == [20, 7, 20, 20]
    assert bool(stats["lp"].notnull().all())


def test_death_is_remembered_across_a_resume(tmp_path):
    def power_cut(kernel, params, stage, index):
        if index == 12:
            raise RuntimeError("power cut")

    settings = {"run_dir": tmp_path, "segment_draws": 4}
    kernel = Poisoned(density(), step_size=1e-3)
    with pytest.raises(RuntimeError, match="power cut"):
        mcmc(kernel, **settings, hook_fn=power_cut).run()
    # The cause is gone, the chain stays dead.
    resumed = mcmc(SGLD(density(), step_size=1e-3), **settings)
    resumed.run(resume=True)
    assert resumed.progress.dead == [1]
    frozen = resumed.get_samples(group_by_chain=True)["weight"][1, 6:]
    assert torch.equal(frozen, frozen[:1].expand(14, 2))


@pytest.mark.parametrize("kind", [SGLD, SGHMC])
def test_a_step_size_that_kills_every_chain_stops_with_the_last_good_state(tmp_path, kind):
    run = mcmc(kind(density(), step_size=10.0), num_samples=2000, run_dir=tmp_path)
    with pytest.raises(UserError, match=r"every chain has become NaN.*step size 10;.*smaller"):
        run.run()
    saved = run._checkpoint.load(run.kernel.state_type, run.kernel.warmup(0), torch.device("cpu"))
    assert bool(saved.state.position.isfinite().all())
    with open_trace(tmp_path) as trace:
        draws = trace["posterior"]["weight"]
        assert 0 < draws.sizes["draw"] == saved.progress.draws < 2000
        assert bool(draws.notnull().all())


def test_a_step_size_that_rejects_everything_stops_as_well():
    kernel = HMC(density(), step_size=500.0, num_steps=1, adapt_step_size=False)
    with pytest.raises(UserError, match="has diverged 25 times in a row at draw 25"):
        mcmc(kernel, num_samples=100).run()
    # A short streak is not the end of a run, nor are divergences in some chains.
    run = mcmc(kernel, num_samples=20)
    run.run()
    assert run.progress.stuck == 20


SCRIPT = """
import pyro
import pyro.distributions as dist
import torch
from pyro_bnn import Data, Split

def model(x, y=None):
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(2), 2.0).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ weight, 0.5), obs=y)

def data():
    x = torch.linspace(-1, 1, 24).reshape(12, 2)
    return Data(Split(x, x[:, 0]), Split(x[:5], x[:5, 0]))
"""


def test_the_command_leaves_dead_chains_out_and_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    monkeypatch.setattr(
        SGLDSettings, "kernel", lambda self, density: Poisoned(density, **self.options())
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[kernel]\nname = "sgld"\nstep_size = 1e-3\n'
        "[run]\nchains = 4\ndraws = 20\nwarmup = 2\nthreads = 1\n[quotient]\nenabled = false\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    infer(tmp_path / "script.py", recipe, out=out, no_report=True)
    assert "dead       1 of 4 chains became NaN" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["dead_chains"] == 1
    assert summary["chains"] == 3
    assert summary["divergences"] == 0
    with open_trace(out / "trace.nc") as trace:
        assert trace.attrs["dead_chains"] == "[1]"
        # Nothing is dropped from the trace itself.
        assert trace["posterior"].sizes["chain"] == 4
        assert bool(trace["posterior"]["weight"].notnull().all())


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("MCMC: every chain is dead", "pyro-bnn: MCMC: every chain is dead"),
        ("ChEES has no option", "pyro-bnn: ChEES has no option"),
        ("SWAG: rank is 20", "pyro-bnn: SWAG: rank is 20"),
        ("Laplace: prior is 0", "pyro-bnn: Laplace: prior is 0"),
        ("Wine already holds a run", "pyro-bnn: Wine already holds a run"),
        ("The run holds nothing", "pyro-bnn: the run holds nothing"),
        ("A run holds nothing", "pyro-bnn: a run holds nothing"),
    ],
)
def test_the_command_tells_an_error_after_its_own_name(capsys, sentence, told):
    def fail():
        raise UserError(sentence)

    with pytest.raises(SystemExit):
        told_in_a_sentence(fail)
    assert capsys.readouterr().err == f"{told}\n"


# What is pooled


def test_pooled_variances_leave_dead_chains_out():
    draws = torch.randn(30, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    alive = PooledVariance.like(torch.zeros(4, 3).double(), dense=False)
    pooled = PooledVariance.like(torch.zeros(5, 3).double(), dense=False)
    for position in draws:
        alive.update(position[:4])
        dead = position.clone()
        dead[4] = torch.nan
        pooled.update(dead)
    torch.testing.assert_close(pooled.estimate(), alive.estimate())
    assert bool(pooled.estimate().isfinite().all())


def test_warm_up_learns_the_same_without_a_dead_chain(targets):
    """Step size and mass matrix, with a fifth chain that is dead."""
    gaussian, _ = targets
    target = gaussian(torch.diag(torch.tensor([0.1, 1.0, 10.0])))
    kernel = HMC(None, num_steps=5)
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()

    def learnt(*, with_dead):
        chains = 5 if with_dead else 4
        source = torch.Generator().manual_seed(1)
        state = kernel.init(start[:chains], target, source)
        warmup = Warmup(
            100,
            adapt_step_size=True,
            adapt_mass_matrix=True,
            target_accept_prob=0.8,
            find_step_size=lambda state, density, generator: state.step_size,
        )
        state = state._replace(step_size=torch.full((chains,), 0.3).double())
        state = warmup.begin(state, target, source)
        rates = torch.Generator().manual_seed(2)
        positions = torch.Generator().manual_seed(3)
        dead = DeadChains([4] if with_dead else [])
        for _ in range(100):
            rate = torch.rand(4, generator=rates).double()
            moved = torch.randn(4, 3, generator=positions).double()
            if with_dead:
                rate = torch.cat([rate, torch.zeros(1).double()])
                moved = torch.cat([moved, start[4:]])
            state = state._replace(position=moved)
            info = Info({"acceptance_rate": rate}, 1)
            updated = warmup.update(*dead.hide(state, info), target, source)
            state = dead.keep(state, updated)
        return state

    one, other = learnt(with_dead=True), learnt(with_dead=False)
    torch.testing.assert_close(one.step_size, other.step_size)
    torch.testing.assert_close(one.metric.inverse, other.metric.inverse)
    assert bool(one.position.isfinite().all())


# Memory


def test_chains_beyond_memory_are_refused_with_what_they_need():
    run = mcmc(HMC(density()), num_chains=10**10)
    # 2 dimensions of 8 bytes, 20 draws and 12 vectors.
    with pytest.raises(UserError, match=r"10000000000 chains of 2 dimensions need 5,120\.0 GB"):
        run.run()


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
         "8 bytes of them in one tensor"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "20.00 GiB"),
        (MemoryError(), "activations"),
    ],
    ids=["cpu", "cuda", "python"],
)  # fmt: skip
def test_an_allocator_that_gives_up_is_explained(error, part):
    def fail(*arguments):
        raise error

    run = mcmc(HMC(density()), hook_fn=fail)
    with pytest.raises(
        UserError, match=r"4 chains do not fit into the memory of cpu.*2\.05 KB"
    ) as e:
        run.run()
    assert part in str(e.value)


def test_other_errors_stay_what_they_are():
    def fail(*arguments):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        mcmc(HMC(density()), hook_fn=fail).run()
