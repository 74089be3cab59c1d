"""From a model script to a report, and every way in which the input can be wrong."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pytest

from pyro_bnn.trace import open_trace, segment_paths

KEYS = {
    "test.nll",
    "rhat.weight.median",
    "rhat.canonical.median",
    "rhat.function.median",
    "ess.function.median",
    "divergences",
    "gradients",
    "seconds",
}


def posterior(path, group="posterior"):
    with open_trace(path) as tree:
        return {name: v.to_numpy() for name, v in tree[group].data_vars.items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


def everything(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_run_makes_every_file_and_every_command_reads_it(infer, command, script, tmp_path):
    model, run = script(), tmp_path / "run"
    outcome = infer(model, "--out", run)
    assert outcome.code == 0, outcome.err
    assert {p.name for p in run.iterdir()} == {
        "recipe.toml",
        "model.py",
        "data.json",
        "segments",
        "state.safetensors",
        "trace.nc",
        "summary.json",
        "report.html",
    }
    # 12 draws in segments of 5.
    assert [p.name for p in segment_paths(run)] == ["000000.nc", "000001.nc", "000002.nc"]
    assert "draws = 12" in (run / "recipe.toml").read_text(encoding="utf-8")
    assert (run / "model.py").read_text(encoding="utf-8") == model.read_text(encoding="utf-8")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert set(summary) >= KEYS
    assert all(not isinstance(value, dict | list) for value in summary.values())
    assert summary["gradients"] >= 3 * 42
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert not re.search(r"(src|href)=[\"']https?://[^\"']+\.(js|css|png)", page)
    for word in ("hmc", "tiny", "3 chains", "hidden spaces h0: 3", "finished"):
        assert word in outcome.out
    assert "\x1b[" not in outcome.out

    with open_trace(run) as tree:
        assert set(tree.children) >= {
            "posterior",
            "sample_stats",
            "canonical_posterior",
            "symmetry",
            "predictions",
            "predictions_constant_data",
            "point_estimate",
            "observed_data",
        }
        assert tree["posterior"]["0.weight"].shape == (3, 12, 3, 2)
        assert tree["posterior"]["0.weight"].dims[2] == tree["posterior"]["2.weight"].dims[3]
        predictions = tree["predictions"]
        assert predictions.attrs["likelihood"] == "continuous"
        assert predictions["log_predictive"].shape == (3, 12, 10)
        assert predictions["cdf"].shape == (3, 12, 10)
        assert tree["point_estimate"]["mean"].shape == (10,)
        assert tree.attrs["creation_library"] == "pyro_bnn"
        assert float(tree.attrs["seconds_sampling"]) > 0

    # report and quotient on the run, and on a trace that stands alone.
    (run / "report.html").unlink()
    (run / "summary.json").unlink()
    assert command("report", run).code == 0
    assert json.loads((run / "summary.json").read_text())["divergences"] == summary["divergences"]
    assert (run / "report.html").stat().st_size > 10_000
    before, canonical = posterior(run), posterior(run, "canonical_posterior")
    assert command("quotient", run).code == 0
    assert_same(posterior(run), before)
    assert_same(posterior(run, "canonical_posterior"), canonical)
    alone = tmp_path / "alone.nc"
    shutil.copy(run / "trace.nc", alone)
    command("quotient", alone).assert_refused("--model")
    assert command("quotient", alone, "--model", model).code == 0
    assert_same(posterior(alone, "canonical_posterior"), canonical)
    chosen = ["--permutation", "align", "--reference", "previous", "--scaling", "none", "--no-sign"]
    assert command("quotient", alone, "--model", model, *chosen).code == 0
    with open_trace(alone) as tree:
        attributes = tree["symmetry"].attrs
        assert attributes["permutation"] == "align"
        assert attributes["reference"] == "previous"
        assert attributes["scaling"] == attributes["sign"] == "none"
        assert tree["canonical_prior"].sizes["draw"] == 12
    wrong = command("quotient", alone, "--model", model, "--permutation", "shuffle")
    wrong.assert_refused("quotient.permutation")
    assert command("report", alone, "--out", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").is_file()
    assert (tmp_path / "alone.summary.json").is_file()

    # What must not touch it.
    kept = everything(run)
    infer(model, "--out", run).assert_refused(run, "already holds a run", "--resume")
    other_seed = infer("--resume", "--out", run, "--seed", "7")
    other_seed.assert_refused("run.seed = 0", "not 7")
    infer("--resume", "--out", run, "--draws=13").assert_refused("run.draws = 12", "not 13")
    infer("--resume", "--out", run, "--set=kernel.jitter=0.1").assert_refused("kernel.jitter")
    changed = script(("nn.Tanh", "nn.ReLU"))
    infer(changed, "--resume", "--out", run).assert_refused(changed, "has changed")
    assert everything(run) == kept

    # A segment cut short, in a run that is to be joined anew.
    (run / "trace.nc").unlink()
    segment = segment_paths(run)[1]
    whole = segment.read_bytes()
    segment.write_bytes(whole[: len(whole) // 2])
    infer("--resume", "--out", run).assert_refused("000001.nc")
    assert len(segment_paths(run)) == 3
    # With the segment restored, nothing was lost.
    segment.write_bytes(whole)
    assert infer("--resume", "--out", run, "--no-report").code == 0
    assert_same(posterior(run), before)
    with open_trace(run) as tree:
        assert tree.attrs["model"] == "tiny"  # not as the copy of the script in the run
    state = run / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    infer("--resume", "--out", run).assert_refused("state.safetensors")


def test_without_a_report_and_without_a_quotient(infer, script, tmp_path):
    run = tmp_path / "run"
    outcome = infer(
        script(), "--out", run, "--no-report", "--set=quotient.enabled=false", "--seed=3"
    )
    assert outcome.code == 0, outcome.err
    assert not (run / "report.html").exists()
    assert (run / "summary.json").is_file()
    with open_trace(run) as tree:
        assert "canonical_posterior" not in tree.children


def test_the_default_recipe_says_which_path_its_gradient_took_and_why(command, script, tmp_path):
    run = tmp_path / "run"
    brief = ["--chains=4", "--warmup=30", "--draws=10", "--set=run.threads=1", "--no-report"]
    outcome = command("infer", script(), *brief, "--out", run)
    assert outcome.code == 0, outcome.err
    assert "recipe     chees, 4 chains" in outcome.out
    assert "gradients  not compiled: some 7,200 are expected" in outcome.out
    assert "path       ATen graph, eager\n" in outcome.out
    with open_trace(run) as trace:
        assert trace.attrs["gradient_path"] == "ATen graph, eager"
        passes = json.loads(trace.attrs["gradient_passes"])
    assert "lay_out_products" in passes
    assert f"passes {', '.join(passes)} judging" in " ".join(outcome.out.split())
    assert max(map(len, outcome.out.partition("path ")[2].splitlines()[:-2])) <= 80


def test_one_chain_is_told_what_the_default_recipe_needs(command, script, tmp_path):
    out = ["--out", tmp_path / "run", "--set=run.threads=1"]
    command("infer", script(), "--chains=1", *out).assert_refused("run.chains = 1", "hmc.toml")
    assert not (tmp_path / "run").exists()


def test_same_seed_same_draws_in_another_directory(command, script, tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        '[kernel]\nname = "nuts"\nmax_tree_depth = 5\n'
        "[run]\nchains = 2\ndraws = 4\nwarmup = 6\nthreads = 1\n"
        "[quotient]\nenabled = false\n",
        encoding="utf-8",
    )
    found = []
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        out = tmp_path / name
        outcome = command(
            "infer", script(), "--recipe", recipe, "--seed", seed, "--out", out, "--no-report"
        )
        assert outcome.code == 0, outcome.err
        found.append(posterior(out))
    assert_same(found[0], found[1])
    assert not np.array_equal(found[0]["0.bias"], found[2]["0.bias"])


# Bad input: scripts

BAD_SCRIPTS = {
    "without model": (("def model(", "def other("), ["tiny.py", "model(x, y=None)"]),
    "without data": (("def data(", "def other("), ["tiny.py", "data"]),
    "raising at import": (("net =", "1 / 0\nnet ="), ["ZeroDivisionError", "line 9", "imported"]),
    "exiting at import": (("net =", "raise SystemExit(0)\nnet ="), ["SystemExit"]),
    "syntax error": (("net =", "net = ("), ["SyntaxError"]),
    "data raising": (
        ("x = torch.linspace", "torch.linspace('a')\n    x = torch.linspace"),
        ["data()"],
    ),
    "data returning a tuple": (("return Data(", "return 1, Data("), ["tuple"]),
    "parameter without a prior": (
        ('prior=Normal(scale="fan_in")', 'prior={"*.weight": Normal()}'),
        ["no prior for parameter '0.bias', '2.bias'"],
    ),
    "discrete latent": (
        ("    return gaussian(", "    pyro.sample('k', dist.Bernoulli(0.5))\n    return gaussian("),
        ["'k' is discrete"],
    ),
    "random draws": (("gaussian(bnn(x), y)", "gaussian(bnn(x) + torch.rand(()), y)"), ["random"]),
    "control flow": (
        ("gaussian(bnn(x), y)", "gaussian(h if (h := bnn(x)).sum() > 0 else -h, y)"),
        ["branches on the value of a latent site"],
    ),
    "NaN at the start": (
        ("gaussian(bnn(x), y)", "gaussian(0 * bnn(x) / 0, y)"),
        ["'y'", "nan"],
    ),
    "infinite at the start": (
        (
            "    return gaussian(",
            "    pyro.factor('wall', torch.tensor(-torch.inf))\n    return gaussian(",
        ),
        ["'wall'", "-inf"],
    ),
    "rows of x and y": (("Split(x[:20], y[:20])", "Split(x[:20], y[:19])"), ["(20, 2)", "(19,)"]),
    "a column of targets": (("Split(x[:20], y[:20])", "Split(x[:20], y[:20, None])"), ["(20, 1)"]),
    "columns of train and test": (("Split(x[20:], y", "Split(x[20:, :1], y"), ["'test'"]),
    "NaN in the data": (
        ("return Data", "x[3, 1] = torch.nan\n    return Data"),
        ["x is NaN", "row 3"],
    ),
    "dropout in training": (("nn.Tanh()", "nn.Dropout(0.5)"), ["layer '1' (Dropout)", ".eval()"]),
    "slash in a name": (('scale="fan_in")', 'scale="fan_in"), prefix="a/"'), ["'a/0.weight'"]),
}


@pytest.mark.parametrize("case", BAD_SCRIPTS)
def test_bad_scripts_get_one_sentence(infer, script, tmp_path, case):
    exchange, parts = BAD_SCRIPTS[case]
    model = script(
        ("import torch\n", "import pyro\nimport pyro.distributions as dist\nimport torch\n")
    )
    text = model.read_text(encoding="utf-8")
    assert exchange[0] in text
    model.write_text(text.replace(*exchange), encoding="utf-8")
    outcome = infer(model, "--out", tmp_path / "run")
    outcome.assert_refused(*parts)
    # The directory is free for another try.
    assert not (tmp_path / "run" / "recipe.toml").exists()


# Bad input: arguments


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nowhere.py"], ["nowhere.py"]),
        (["--set=run.chians=4"], ["'run.chians'", "did you mean 'run.chains'?"]),
        (["--set=kernel.num_stpes=4"], ["'kernel.num_stpes'", "'kernel.num_steps'"]),
        (["--set=kernel.max_tree_depth=4"], ["'kernel.max_tree_depth'", "'chees'", "num_steps"]),
        (["--set=chains=4"], ["'chains'", "'run.chains'"]),
        (["--set=run.draws=-4"], ["run.draws = -4", "greater than or equal to 1"]),
        (["--set=run.draws=many"], ["run.draws = 'many'"]),
        (["--set=run.draws"], ["KEY=VALUE"]),
        (["--set=kernel.name=gibbs"], ["the kernels are hmc, nuts"]),
        (["--recipe=nowhere.toml"], ["nowhere.toml"]),
        (["--device=cuda:77"], ["'cuda:77'"]),
        (["--resume"], ["--out"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("-") else "",
)
def test_bad_arguments_get_one_sentence(command, script, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    model = [] if arguments[0] == "nowhere.py" else [script()]
    out = [] if arguments == ["--resume"] else ["--out", tmp_path / "run"]
    outcome = command("infer", *model, *arguments, *out, "--set=run.threads=1")
    outcome.assert_refused(*parts)
    assert not (tmp_path / "run").exists()


def test_bad_recipe_files_get_one_sentence(command, script, tmp_path):
    recipe = tmp_path / "own.toml"
    for text, parts in (
        ("[run\n", ["own.toml", "not valid TOML"]),
        ("[run]\nchians = 3\n", ["own.toml", "'run.chians'", "'run.chains'"]),
        ("[rnu]\nchains = 3\n", ["'rnu'"]),
        ("[kernel]\nstep_size = 0.1\n", ["kernel.name"]),
        ('[kernel]\nname = "nuts"\njitter = 0.5\n', ["kernel.jitter"]),
    ):
        recipe.write_text(text, encoding="utf-8")
        command("infer", script(), "--recipe", recipe).assert_refused(*parts)


def test_resume_and_reports_of_nothing(command, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    command("infer", "--resume", "--out", empty).assert_refused(empty, "no run to resume")
    command("report", empty).assert_refused(empty, "no finished trace")
    command("report", tmp_path / "gone").assert_refused("no finished trace")
    command("quotient", empty).assert_refused("no finished trace")
    (tmp_path / "noise.nc").write_bytes(os.urandom(2000))
    command("report", tmp_path / "noise.nc").assert_refused("noise.nc")


def test_a_directory_that_cannot_be_written(infer, script, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    infer(script(), "--out", tmp_path / "file" / "run").assert_refused("cannot be written")
    assert (tmp_path / "file").read_text() == "not a directory"
