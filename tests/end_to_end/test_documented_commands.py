"""Every ``pyro-bnn`` command of the README and the documentation is run, at a small size."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_wine
from torch import nn

from pyro_bnn.infer.cli.app import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What a command gets on top, by its recipe: the last of two options counts.
BRIEF = [
    "--chains=2",
    "--warmup=4",
    "--draws=4",
    "--set=run.threads=1",
    "--set=run.segment_draws=2",
]
METHODS = {
    "hmc.toml": ["--set=kernel.num_steps=2"],
    "nuts.toml": ["--set=kernel.max_tree_depth=2"],
    "chees.toml": [],
    "swag.toml": ["--set=guide.epochs=2", "--set=guide.collect_epochs=4", "--set=guide.rank=2"],
}

# A cluster, a GPU or a large data set: what stands for it here, or why it is left out.
INSTEAD = {"tcp://10.0.0.1:8786": "none", "local": "none", "cuda": "cpu"}
LEFT_OUT = {"resnet18_cifar100.toml": "needs CIFAR-100 and days"}

# Runs that a page speaks of without making them, and the script that each is of.
RUNS = {
    "runs/diabetes": "diabetes_mlp",
    "runs/digits": "digits_mlp",
    "runs/hmc": "diabetes_mlp",
    "runs/nuts": "diabetes_mlp",
    "runs/ensemble": "diabetes_mlp",
    "runs/long": "diabetes_mlp",
    "runs/iris": "diabetes_mlp",
    "trace.nc": "digits_mlp",
    "numpyro.nc": "diabetes_mlp",
}


def commands(page):
    """List the ``pyro-bnn`` commands of a page, as words."""
    return [
        words[1:]
        for text in FENCE.findall(page.read_text(encoding="utf-8"))
        for line in text.replace("\\\n", "").splitlines()
        if (words := shlex.split(line, comments=True)) and words[0] == "pyro-bnn"
    ]


def shortened(words):
    """Return a command of a few seconds in place of one of minutes."""
    words = [INSTEAD.get(word, word) for word in words]
    if words[0] != "infer" or "--resume" in words:
        return words
    if "--recipe" not in words:
        words = [*words, "--recipe", "hmc.toml"]
    recipe = Path(words[words.index("--recipe") + 1]).name
    return [*words, *BRIEF, *METHODS[recipe]]


def run(words, capsys, monkeypatch):
    """Run a command in this process; its exit code, and what it said."""
    monkeypatch.setattr(sys, "argv", ["pyro-bnn", *words])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that makes a run of a script, once."""
    folder = tmp_path_factory.mktemp("made")

    def make(script, capsys, monkeypatch):
        out = folder / script
        if not out.exists():
            words = shortened(["infer", script, "--out", str(out)])
            code, said = run(words, capsys, monkeypatch)
            assert code == 0, said
        return out

    return make


def prepare(words, page, folder, make):
    """Put what a command reads, and no earlier one has made, where it looks for it."""
    for name, script in RUNS.items():
        if name in words and not (folder / name).exists() and "--out" not in words:
            found = make(script)
            if name.endswith(".nc"):
                shutil.copyfile(found / "trace.nc", folder / name)
            else:
                shutil.copytree(found, folder / name)
    if "--resume" in words:
        shutil.copytree(make("diabetes_mlp"), words[words.index("--out") + 1])
        return
    for word in words:
        if word in {"my_model.py", "iris.py"}:
            code = re.search(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
            (folder / word).write_text(code[1], encoding="utf-8")
    if "wine.csv" in words and not (folder / "wine.csv").exists():
        features, labels = load_wine(return_X_y=True)
        with (folder / "wine.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow([*(f"x{k}" for k in range(features.shape[1])), "quality"])
            out.writerows([*row, label] for row, label in zip(features, labels, strict=True))
    if ("downloads" in words or "downloads.nc" in words or "nets" in words) and not (
        folder / "downloads"
    ).exists():
        (folder / "downloads").mkdir()
        net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        for seed in range(3):
            torch.manual_seed(seed)
            state = {name: torch.randn_like(value) for name, value in net.state_dict().items()}
            torch.save(state, folder / "downloads" / f"{seed}.pt")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem
)
def test_the_commands_of_a_page_run(page, made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("models", "inference"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for words in commands(page):
        if any(name in word for name in LEFT_OUT for word in words):
            continue
        if words[0] == "quotient" and "nets" in words and not Path("nets").exists():
            before = ["import", "downloads", "--model", "models/digits_mlp.py"]
            prepare([*before], page, tmp_path, None)
            assert run([*before, "--collection", "nets"], capsys, monkeypatch)[0] == 0
        prepare(words, page, tmp_path, lambda script: made(script, capsys, monkeypatch))
        code, said = run(shortened(words), capsys, monkeypatch)
        assert code == 0, (words, said)
        if "--out" in words:
            assert Path(words[words.index("--out") + 1]).exists()
