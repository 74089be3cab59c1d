"""`MCMC`: Pyro's face, draws that come again, and runs that go on where they ended."""

from __future__ import annotations

import functools
import inspect
import signal

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from arviz_stats.base import array_stats
from pyro.infer.autoguide.initialization import init_to_value

import pyro_bnn.infer
from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer import HMC, MCLMC, MCMC, NUTS, AdjustedMCLMC, ChEES
from pyro_bnn.trace import open_trace, segment_paths

X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X @ torch.tensor([1.0, -2.0], dtype=torch.float64) + 0.5 * torch.sin(7 * X[:, 0])
NOISE = 0.5


def regression(x, y):
    """Regress on normal weights with known noise: the posterior is known."""
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(2), 2.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, NOISE), obs=y)


def closed_form():
    precision = X.mT @ X / NOISE**2 + torch.eye(2) / 4
    covariance = torch.linalg.inv(precision)
    return (covariance @ X.mT @ Y / NOISE**2).numpy(), covariance.numpy()


def with_noise(x, y):
    """As `regression`, with a scalar site whose support is the half-line."""
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(2), 2.0).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(x.new_ones(())))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, noise), obs=y)


@pytest.fixture(autouse=True)
def _seeded():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


@functools.cache
def density_of(model):
    """Trace a model once for all tests: a log density is a pure function."""
    return LogDensity(model, X, Y)


def run(model=with_noise, kernel=HMC, options=None, resume=False, **settings):
    options = {"num_steps": 4, "jitter": 0.5} if options is None and kernel is HMC else options
    settings = {
        "num_samples": 12,
        "warmup_steps": 30,
        "num_chains": 3,
        "disable_progbar": True,
        "seed": 5,
        **settings,
    }
    mcmc = MCMC(kernel(density_of(model), **(options or {})), **settings)
    mcmc.run(resume=resume)
    return mcmc


# Pyro's face

SCRIPT = """
import pyro
import pyro.distributions as dist
import torch
from {package} import HMC, MCMC, NUTS, Predictive


def model(x, y=None):
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(slope * x, noise), obs=y)


pyro.set_rng_seed(1)
x = torch.linspace(-1.0, 1.0, 40)
y = 1.5 * x + 0.3 * torch.cos(20 * x)
kernel = {kernel}
mcmc = MCMC(kernel, num_samples=150, warmup_steps=150, num_chains=1, disable_progbar=True)
mcmc.run(x, y=y)
samples = mcmc.get_samples()
chains = mcmc.get_samples(group_by_chain=True)
few = mcmc.get_samples(num_samples=7)
mcmc.summary(prob=0.5)
found = mcmc.diagnostics()
predictive = Predictive(model, samples)(x)["y"]
"""

KERNEL_CALLS = [
    "NUTS(model, step_size=0.1, jit_compile=True, ignore_jit_warnings=True, max_tree_depth=6)",
    "HMC(model, step_size=0.2, num_steps=5, adapt_step_size=True, max_plate_nesting=1)",
]


@pytest.mark.parametrize("kernel", KERNEL_CALLS, ids=["NUTS", "HMC"])
def test_pyro_script_runs_with_only_its_import_changed(kernel, capsys):
    results = {}
    for package in ("pyro.infer", "pyro_bnn.infer"):
        # Pyro's compiled path warns: it is asked for on ours only, where it means nothing.
        text = (
            kernel if package.startswith("pyro_bnn") else kernel.replace("jit_compile=True, ", "")
        )
        results[package] = {}
        exec(SCRIPT.format(package=package, kernel=text), results[package])
        printed = capsys.readouterr().out
        assert "slope" in printed
        assert "r_hat" in printed
        assert "Number of divergences: 0" in printed
    theirs, ours = results["pyro.infer"], results["pyro_bnn.infer"]
    for name in ("samples", "chains", "few"):
        assert {k: v.shape for k, v in ours[name].items()} == {
            k: v.shape for k, v in theirs[name].items()
        }
    assert ours["predictive"].shape == theirs["predictive"].shape
    assert ours["found"].keys() == theirs["found"].keys()
    assert ours["found"]["slope"].keys() == theirs["found"]["slope"].keys()
    assert ours["found"]["divergences"] == theirs["found"]["divergences"] == {"chain 0": []}
    for site in ("slope", "noise"):
        one, other = ours["samples"][site], theirs["samples"][site]
        # 150 draws of each, worth 40 independent ones at the very least.
        error = float((one.var() / 40 + other.var() / 40).sqrt())
        assert abs(float(one.mean() - other.mean())) < 5 * error


@pytest.mark.parametrize("name", ["MCMC", "HMC", "NUTS"])
def test_every_option_of_pyro_is_taken_at_its_default(name):
    theirs = inspect.signature(getattr(pyro.infer, name).__init__).parameters
    ours = getattr(pyro_bnn.infer, name)
    defaults = {
        option: parameter.default
        for option, parameter in theirs.items()
        if parameter.default is not inspect.Parameter.empty and option != "model"
    }
    assert len(defaults) > 5
    if name == "MCMC":
        ours(HMC(regression), 10, **defaults)
        # Their order too: Pyro's arguments may be given by position.
        names = list(inspect.signature(ours.__init__).parameters)
        assert names[: len(theirs)] == list(theirs)
    else:
        ours(regression, **defaults)


def test_every_method_of_pyro_is_there_with_its_arguments():
    for name in ("run", "get_samples", "summary", "diagnostics"):
        theirs = inspect.signature(getattr(pyro.infer.MCMC, name)).parameters
        ours = inspect.signature(getattr(MCMC, name)).parameters
        assert set(theirs) <= set(ours)


@pytest.mark.parametrize("kernel", [NUTS, lambda model: HMC(model, num_steps=4, jitter=0.5)])
def test_pyro_drives_our_kernels(kernel, assert_mean):
    mcmc = pyro.infer.MCMC(
        kernel(regression), num_samples=400, warmup_steps=150, disable_progbar=True
    )
    mcmc.run(X, Y)
    mean, covariance = closed_form()
    draws = mcmc.get_samples(group_by_chain=True)["weight"].numpy()
    assert draws.shape == (1, 400, 2)
    assert_mean(draws, mean, least_ess=60, what="mean")
    assert_mean((draws - mean) ** 2, covariance.diagonal(), least_ess=40, what="variance")
    found = mcmc.diagnostics()
    assert found["divergences"] == {"chain 0": []}
    assert 0.6 < found["acceptance rate"]["chain 0"] <= 1


def test_pyro_gets_constrained_draws_from_our_kernels():
    mcmc = pyro.infer.MCMC(
        NUTS(with_noise), num_samples=40, warmup_steps=60, num_chains=1, disable_progbar=True
    )
    mcmc.run(X, Y)
    noise = mcmc.get_samples()["noise"]
    assert noise.shape == (40,)
    assert bool((noise > 0).all())
    assert 0.2 < float(noise.mean()) < 0.8
    # Pyro calls cleanup, after which the kernel holds no data.
    with pytest.raises(UserError, match="setup"):
        mcmc.kernel.sample({})


# Statistics


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (NUTS, {}),
        (HMC, {"num_steps": 4, "jitter": 0.5}),
        (NUTS, {"full_mass": True}),
        (ChEES, {}),
        (AdjustedMCLMC, {}),
        (AdjustedMCLMC, {"full_mass": True}),
    ],
    ids=["NUTS", "HMC", "NUTS dense", "ChEES", "AdjustedMCLMC", "AdjustedMCLMC dense"],
)
def test_linear_regression_in_closed_form(kernel, options, assert_mean):
    mcmc = run(regression, kernel, options, num_chains=16, num_samples=150, warmup_steps=100)
    draws = mcmc.get_samples(group_by_chain=True)["weight"].numpy()
    assert draws.shape == (16, 150, 2)
    mean, covariance = closed_form()
    assert_mean(draws, mean, least_ess=800, what="mean")
    centred = draws - mean
    products = centred[..., [0, 1, 0]] * centred[..., [0, 1, 1]]
    expected = covariance[[0, 1, 0], [0, 1, 1]]
    assert_mean(products, expected, least_ess=250, what="covariance")


# Draws and their shapes


def test_shapes_of_the_draws():
    mcmc = run()
    grouped, flat = mcmc.get_samples(group_by_chain=True), mcmc.get_samples()
    assert {n: v.shape for n, v in grouped.items()} == {"weight": (3, 12, 2), "noise": (3, 12)}
    assert {n: v.shape for n, v in flat.items()} == {"weight": (36, 2), "noise": (36,)}
    assert torch.equal(flat["weight"], grouped["weight"].reshape(36, 2))
    assert grouped["weight"].dtype == torch.float64
    assert bool((grouped["noise"] > 0).all())
    some = mcmc.get_samples(num_samples=50)
    assert some["weight"].shape == (50, 2)
    # The same rows of every site.
    rows = [int((flat["noise"] == value).nonzero()[0]) for value in some["noise"]]
    assert torch.equal(flat["weight"][rows], some["weight"])
    assert mcmc.get_samples(5, group_by_chain=True)["noise"].shape == (3, 5)


def test_datatree_has_the_statistics_under_the_names_of_arviz():
    tree = run(kernel=NUTS, dims={"weight": ["x0"]}).to_datatree()
    assert tree["posterior"]["weight"].dims == ("chain", "draw", "x0")
    stats = tree["sample_stats"]
    assert set(stats.data_vars) == {
        "lp",
        "acceptance_rate",
        "diverging",
        "energy",
        "n_steps",
        "tree_depth",
        "step_size",
    }
    assert all(stats[name].shape == (3, 12) for name in stats.data_vars)
    assert len(np.unique(stats["step_size"])) == 1
    # lp is the log density of the recorded draw.
    density = LogDensity(with_noise, X, Y)
    draws = {name: torch.tensor(v.values[:, 7]) for name, v in tree["posterior"].items()}
    expected = -density.potential(density.unconstrain(draws))
    np.testing.assert_allclose(stats["lp"][:, 7], expected, rtol=1e-8)


def test_diagnostics_and_summary(capsys):
    mcmc = run(regression)
    found = mcmc.diagnostics()
    assert set(found) == {"weight", "divergences", "acceptance rate"}
    assert set(found["weight"]) == {"n_eff", "r_hat"}
    assert found["weight"]["r_hat"].shape == (2,)
    assert set(found["acceptance rate"]) == {"chain 0", "chain 1", "chain 2"}
    rates = mcmc.to_datatree()["sample_stats"]["acceptance_rate"].mean("draw")
    assert found["acceptance rate"]["chain 1"] == pytest.approx(float(rates[1]), rel=1e-6)
    mcmc.summary()
    printed = capsys.readouterr().out
    assert "weight[0]" in printed
    assert "n_eff" in printed
    assert "Number of divergences: 0" in printed


def test_divergences_are_told_by_chain_and_draw():
    options = {"step_size": 500.0, "adapt_step_size": False, "num_steps": 1}
    mcmc = run(regression, options=options, warmup_steps=0)
    assert mcmc.diagnostics()["divergences"]["chain 2"] == list(range(12))
    assert mcmc.progress.divergences == 36


def test_seeds_give_the_draws_again():
    one, again, other = (run(seed=s).get_samples()["weight"] for s in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_without_a_seed_that_of_pyro_counts():
    found = []
    for seed in (3, 3, 4):
        pyro.set_rng_seed(seed)
        found.append(run(seed=None).get_samples()["weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    # And two runs in a row differ.
    assert not torch.equal(found[2], run(seed=None).get_samples()["weight"])


def test_run_again_starts_anew():
    mcmc = run()
    first = mcmc.get_samples()["weight"].clone()
    mcmc.run(X, Y)
    assert torch.equal(mcmc.get_samples()["weight"], first)
    assert mcmc.progress.draws == 12


def test_draws_that_were_handed_out_stay_as_they_are():
    def model(y):
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        pyro.sample("y", dist.Normal(mean, 0.1), obs=y)

    mcmc = MCMC(HMC(model, num_steps=4), 20, warmup_steps=50, seed=0, disable_progbar=True)
    found = []
    for value in (0.0, 5.0):
        mcmc.run(torch.tensor(value))
        found.append(mcmc.get_samples()["mean"])
    assert [round(float(draws.mean())) for draws in found] == [0, 5]


def test_one_object_takes_data_of_another_width():
    def model(x, y):
        weight = pyro.sample("weight", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ weight, 1.0), obs=y)

    mcmc = MCMC(HMC(model, num_steps=2), 5, warmup_steps=2, disable_progbar=True)
    for x in (X, X[:, :1]):
        mcmc.run(x, Y)
        assert mcmc.get_samples()["weight"].shape == (5, x.shape[1])


def test_hook_is_called_after_every_step():
    calls = []

    def hook(kernel, params, stage, index):
        calls.append((stage, index))
        assert isinstance(kernel, HMC)
        assert {n: v.shape for n, v in params.items()} == {"weight": (3, 2), "noise": (3,)}
        if stage == "Sample":
            kept.append(params["noise"].exp())

    kept = []
    mcmc = run(hook_fn=hook, num_samples=4, warmup_steps=3)
    assert calls == [("Warmup", i) for i in range(3)] + [("Sample", i) for i in range(4)]
    drawn = mcmc.get_samples(group_by_chain=True)["noise"]
    torch.testing.assert_close(torch.stack(kept, 1), drawn)


def test_a_move_follows_the_kernel_every_so_many_steps():
    calls = []

    def move(position, generator):
        calls.append(position.clone())
        return -position

    mcmc = run(regression, num_samples=6, warmup_steps=4, move=move, move_every=2)
    assert len(calls) == 5
    plain = run(regression, num_samples=6, warmup_steps=4)
    assert mcmc.progress.gradients == plain.progress.gradients + 5
    tree = mcmc.to_datatree()
    drawn = torch.from_numpy(tree["posterior"]["weight"].to_numpy())
    torch.testing.assert_close(drawn[:, 1::2], -torch.stack(calls[2:], 1))
    # The recorded density is that of the recorded draw, moved or not.
    potential = torch.stack([density_of(regression).potential(chain) for chain in drawn])
    torch.testing.assert_close(torch.from_numpy(tree["sample_stats"]["lp"].to_numpy()), -potential)


def test_a_reflecting_move_keeps_a_symmetric_posterior():
    def model():
        pyro.sample("x", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))

    mcmc = MCMC(
        HMC(model, num_steps=4, jitter=0.5),
        num_samples=2000,
        warmup_steps=100,
        num_chains=8,
        seed=5,
        disable_progbar=True,
        move=lambda position, generator: -position,
        move_every=3,
    )
    mcmc.run()
    drawn = mcmc.get_samples(group_by_chain=True)["x"].numpy()
    ess = array_stats.ess(drawn[..., 0] ** 2, chain_axis=0, draw_axis=1)
    assert ess > 2000
    assert abs((drawn[..., 0] ** 2).mean() - 1) < 5 * np.sqrt(2 / ess)


def test_save_params_keeps_only_those():
    everything = run().get_samples()["noise"]
    mcmc = run(save_params=["noise"])
    assert set(mcmc.get_samples()) == {"noise"}
    assert torch.equal(mcmc.get_samples()["noise"], everything)
    with pytest.raises(UserError, match="'wieght'; the model's sites are weight, noise"):
        run(save_params=["wieght"])


def test_initial_params_are_where_the_chains_start():
    start = {"weight": 3 * torch.ones(3, 2).double(), "noise": torch.zeros(3).double()}
    options = {"step_size": 1e-9, "adapt_step_size": False, "num_steps": 1}
    mcmc = run(initial_params=start, options=options, warmup_steps=0, num_samples=1)
    values = mcmc.get_samples()
    torch.testing.assert_close(values["weight"], start["weight"], atol=1e-6, rtol=0)
    torch.testing.assert_close(values["noise"], torch.ones(3).double(), atol=1e-6, rtol=0)


def test_initial_params_take_the_precision_of_the_model():
    start = {"weight": 3 * torch.ones(3, 2), "noise": torch.zeros(3)}
    drawn = run(initial_params=start, warmup_steps=0, num_samples=1).get_samples()
    assert drawn["weight"].dtype == drawn["noise"].dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weight": torch.zeros(2)}, r"\(2,\) for site 'weight'.*\(3, 2\)"),
        ({"noise": None}, r"nothing for site 'noise'.*\(3,\)"),
        ({"weight": torch.full((3, 2), torch.nan)}, "nan at site 'weight'"),
    ],
)
def test_initial_params_that_do_not_fit(change, sentence):
    start = {"weight": torch.zeros(3, 2), "noise": torch.zeros(3), **change}
    start = {name: value.double() for name, value in start.items() if value is not None}
    with pytest.raises(UserError, match=sentence):
        run(initial_params=start)


def test_init_strategy_of_pyro():
    values = {"weight": torch.tensor([4.0, 5.0]).double(), "noise": torch.tensor(2.0).double()}
    options = {
        "init_strategy": init_to_value(values=values),
        "step_size": 1e-9,
        "adapt_step_size": False,
        "num_steps": 1,
    }
    drawn = run(options=options, warmup_steps=0, num_samples=1).get_samples()
    torch.testing.assert_close(drawn["weight"], values["weight"].expand(3, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_samples": 0}, "num_samples is 0"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"num_chains": 0}, "num_chains is 0"),
        ({"segment_draws": 0}, "segment_draws is 0"),
        ({"transforms": {}}, "transforms follow"),
    ],
)
def test_settings_out_of_range(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        run(**settings)


def test_no_draws_before_run():
    with pytest.raises(UserError, match="call run"):
        MCMC(HMC(regression), 5).get_samples()


def test_warmup_is_as_long_as_the_run_by_default():
    assert MCMC(HMC(regression), 17).warmup_steps == 17
    assert run(warmup_steps=0).progress.warmup == 0


def test_quiet_when_not_a_terminal(capfd):
    run(disable_progbar=False)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


# Runs on disk


def trace_of(directory):
    with open_trace(directory) as tree:
        return {
            (group, str(name)): values.to_numpy()
            for group in ("posterior", "sample_stats")
            for name, values in tree[group].data_vars.items()
        }


def assert_same_draws(found, expected):
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=str(key), strict=True)


@pytest.mark.parametrize("segment_draws", [1, 5, 12, 50])
def test_streamed_draws_are_those_in_memory(tmp_path, segment_draws):
    held = run()
    streamed = run(run_dir=tmp_path, segment_draws=segment_draws)
    assert len(segment_paths(tmp_path)) == -(-12 // segment_draws)
    for name, value in held.get_samples(group_by_chain=True).items():
        assert torch.equal(streamed.get_samples(group_by_chain=True)[name], value)
    one, other = held.to_datatree()["sample_stats"], streamed.to_datatree()["sample_stats"]
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name], other[name])
    assert one.sizes == other.sizes
    assert streamed.diagnostics()["acceptance rate"] == held.diagnostics()["acceptance rate"]


def interrupt_at(stage, index, how):
    def hook(kernel, params, now, count):
        if (now, count) == (stage, index):
            how()

    return hook


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def crash():
    raise RuntimeError("power cut")


MOMENTS = [("Warmup", 0), ("Warmup", 13), ("Warmup", 29), ("Sample", 0), ("Sample", 6)]
CASES = [(HMC, how, moment) for how in (ctrl_c, crash) for moment in MOMENTS]
CASES += [(NUTS, ctrl_c, ("Warmup", 13)), (NUTS, crash, ("Sample", 6))]
# Before and after the last mass matrix, from when on lengths are learned, and among the draws.
CASES += [
    (kernel, how, moment)
    for kernel in (ChEES, AdjustedMCLMC, MCLMC)
    for how, moment in ((ctrl_c, ("Warmup", 13)), (crash, ("Warmup", 26)), (ctrl_c, ("Sample", 6)))
]


@pytest.mark.parametrize(
    ("kernel", "how", "moment"), CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_resumed_draws_are_those_of_an_uninterrupted_run(tmp_path, kernel, how, moment):
    settings = {"kernel": kernel, "segment_draws": 4}
    whole = run(**settings, run_dir=tmp_path / "whole")
    hook = interrupt_at(*moment, how)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        run(**settings, run_dir=tmp_path / "broken", hook_fn=hook)
    # As in another process: nothing is left but the directory.
    pyro.set_rng_seed(99)
    resumed = run(**settings, run_dir=tmp_path / "broken", resume=True)
    assert_same_draws(trace_of(tmp_path / "broken"), trace_of(tmp_path / "whole"))
    assert resumed.progress.gradients == whole.progress.gradients
    assert resumed.progress.divergences == whole.progress.divergences


def test_ctrl_c_keeps_every_finished_draw(tmp_path):
    whole = trace_of_run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(run_dir=tmp_path / "broken", hook_fn=interrupt_at("Sample", 6, ctrl_c))
    kept = trace_of(tmp_path / "broken")
    for key, values in whole.items():
        np.testing.assert_array_equal(kept[key], values[:, :7])


def trace_of_run(directory):
    run(run_dir=directory)
    return trace_of(directory)


def test_one_object_may_be_interrupted_and_resumed(tmp_path):
    whole = trace_of_run(tmp_path / "whole")
    moments = iter([("Warmup", 20), ("Sample", 2), ("Sample", 9)])
    due = next(moments)

    def hook(kernel, params, stage, index):
        if (stage, index) == due:
            raise KeyboardInterrupt

    mcmc = MCMC(
        HMC(with_noise, num_steps=4, jitter=0.5),
        12,
        warmup_steps=30,
        num_chains=3,
        seed=5,
        run_dir=tmp_path / "broken",
        segment_draws=4,
        hook_fn=hook,
        disable_progbar=True,
    )
    for following in (*moments, None):
        with pytest.raises(KeyboardInterrupt):
            mcmc.run(X, Y, resume=True)
        due = following
    mcmc.run(X, Y, resume=True)
    assert_same_draws(trace_of(tmp_path / "broken"), whole)
    assert mcmc.progress.draws == 12


def test_handler_of_ctrl_c_is_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    run()
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        run(run_dir=tmp_path, hook_fn=interrupt_at("Sample", 3, ctrl_c))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_interrupts_at_once():
    def twice():
        ctrl_c()
        ctrl_c()
        raise AssertionError("the second Ctrl-C came to nothing")

    with pytest.raises(KeyboardInterrupt):
        run(hook_fn=interrupt_at("Sample", 3, twice))


def test_a_directory_that_holds_a_run_is_not_drawn_over(tmp_path):
    before = trace_of_run(tmp_path)
    with pytest.raises(UserError, match="already holds a run"):
        run(run_dir=tmp_path, seed=6)
    assert_same_draws(trace_of(tmp_path), before)
    # A finished run, resumed, stays as it is.
    run(run_dir=tmp_path, resume=True)
    assert_same_draws(trace_of(tmp_path), before)


def test_a_run_of_another_size_is_not_resumed(tmp_path):
    before = trace_of_run(tmp_path)
    with pytest.raises(UserError, match=r"\(3, 3\).*not \(4, 3\)"):
        run(run_dir=tmp_path, num_chains=4, resume=True)
    assert_same_draws(trace_of(tmp_path), before)


def test_a_run_that_has_drawn_does_not_warm_up_again(tmp_path):
    """Without a number, warm-up is as long as the run: a longer run would adapt between draws."""
    before = trace_of_run(tmp_path)
    with pytest.raises(UserError, match=r"drawn after 30 steps of warm-up, not 24: .*steps=30"):
        run(run_dir=tmp_path, num_samples=24, warmup_steps=None, resume=True)
    assert_same_draws(trace_of(tmp_path), before)
    longer = run(run_dir=tmp_path, num_samples=24, resume=True)
    assert longer.progress.draws == 24
