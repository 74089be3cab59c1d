"""Every ``pyro-bnn`` command of the README and the documentation is run, at a small size.

`tests/test_docs.py` runs their Python.
"""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_wine
from torch import nn

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIRST_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What a command gets on top, by its recipe: the last of two options counts.
BRIEF = [
    *("--chains=2", "--warmup=4", "--draws=4"),
    *("--set=run.threads=1", "--set=run.segment_draws=2"),
    "--no-report",  # a command of its own, which is documented too
]
METHODS = {
    "hmc.toml": ["--set=kernel.num_steps=2"],
    "nuts.toml": ["--set=kernel.max_tree_depth=2"],
    "chees.toml": [],
    "swag.toml": ["--set=guide.epochs=2", "--set=guide.collect_epochs=4", "--set=guide.rank=2"],
}

# A cluster or a GPU: what stands for it here. tests/infer/distributed has a cluster.
INSTEAD = {"tcp://10.0.0.1:8786": "none", "local": "none", "cuda": "cpu"}
# Data that have to be fetched, and hours or days; tests/study has these networks.
LEFT_OUT = {"resnet18_cifar100.toml", "optunet_mnist_mclmc.toml"}

# Other commands, and where they or a smaller form of them are run, or that they are by hand.
ELSEWHERE = {
    r"python3 -m venv .* && .venv/bin/python -m pyro_bnn.infer": ".ci/run",
    r"python3 -m venv .* && .venv/bin/pytest -n 2": ".ci/run",
    r"git clone .*|python3 -m venv .* -e '.\[dev,docs\]'": ".ci/run",
    r"(PYRO_BNN_\w+=\d+ )?pytest tests/robustness.*": ".ci/run",
    r"pip install atheris|python tests/robustness/fuzz_parsers.py .*": "docs/reliability.md",
    r"python benchmarks/\w+.py.*": "docs/reliability.md",
    r"pytest -m study|python analysis/\w+.py .*": "tests/study/test_studies.py",
}

# Runs that a page speaks of without making them, and the script that each is of.
RUNS = {
    "runs/diabetes": "diabetes_mlp",
    "runs/digits": "digits_mlp",
    "runs/hmc": "diabetes_mlp",
    "runs/nuts": "diabetes_mlp",
    "runs/ensemble": "diabetes_mlp",
    "runs/swag": "diabetes_mlp",
    "runs/long": "diabetes_mlp",
    "runs/iris": "diabetes_mlp",
    "trace.nc": "digits_mlp",
    "numpyro.nc": "diabetes_mlp",
}


def lines(page):
    """List the commands of a page."""
    return [
        line.strip()
        for text in FENCE.findall(page.read_text(encoding="utf-8"))
        for line in text.replace("\\\n", "").splitlines()
        if line.strip() and not line.startswith("#")
    ]


def commands(page):
    """List the ``pyro-bnn`` commands of a page, as words after the first."""
    split = (shlex.split(line, comments=True) for line in lines(page))
    return [
        words[1:]
        for words in split
        if words[0] == "pyro-bnn" and LEFT_OUT.isdisjoint(Path(word).name for word in words)
    ]


def test_every_other_command_is_run_elsewhere():
    others = [line for page in PAGES for line in lines(page) if not line.startswith("pyro-bnn ")]
    unknown = [o for o in others if not any(re.fullmatch(known, o) for known in ELSEWHERE)]
    assert unknown == []
    for known, where in ELSEWHERE.items():
        assert any(re.fullmatch(known, line) for line in others), known
        assert (ROOT / where).is_file()


def test_every_run_that_a_command_reads_is_made():
    missing = []
    for page in PAGES:
        made = set(RUNS)
        for words in commands(page):
            written = words[words.index("--out") + 1] if "--out" in words else None
            read = {word for word in words if word.startswith("runs/")} - {written}
            missing += [(page.name, name) for name in sorted(read - made)]
            made.add(written)
    assert missing == []


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Return a folder for runs that several pages speak of."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def run(command):
    """Return a function that runs a command, which has to succeed."""

    def call(words):
        outcome = command(*words)
        assert outcome.code == 0, (words, outcome.out, outcome.err)

    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if commands(p)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_commands_of_a_page_run(page, shelf, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("models", "inference"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for words in commands(page):
        words = on_this_machine(words)
        prepare(words, page, shelf, run)
        run(shortened(words))
        if "--out" in words:
            assert Path(words[words.index("--out") + 1]).exists()


def on_this_machine(words):
    """Return a command without the cluster, GPU or shared folder that it names."""
    if "--workers" in words:
        at = words.index("--workers")
        words = words[:at] + words[at + 2 :]
    return [INSTEAD.get(word, word).removeprefix("/shared/") for word in words]


def shortened(words):
    """Return a command of seconds in place of one of minutes."""
    if words[0] != "infer" or "--resume" in words:
        return words
    if "--recipe" not in words:
        words = [*words, "--recipe", "hmc.toml"]
    recipe = Path(words[words.index("--recipe") + 1]).name
    return [*words, *BRIEF, *METHODS[recipe]]


def prepare(words, page, shelf, run):
    """Put what a command reads, and no earlier one of its page has made, where it looks for it."""
    resumed = "--resume" in words
    made_here = words[words.index("--out") + 1] if "--out" in words and not resumed else None
    for name, script in RUNS.items():
        if name not in words or name == made_here or Path(name).exists():
            continue
        made = shelf / script
        if not made.exists():
            run(shortened(["infer", script, "--out", str(made)]))
        if name.endswith(".nc"):
            shutil.copyfile(made / "trace.nc", name)
        else:
            shutil.copytree(made, name)
        if resumed:  # as if it had been stopped before its end
            (Path(name) / "trace.nc").unlink()
    for script in {"my_model.py", "iris.py"} & set(words):
        code = FIRST_PYTHON.search(page.read_text(encoding="utf-8"))
        Path(script).write_text(code[1], encoding="utf-8")
    if "wine.csv" in words:
        write_wines(Path("wine.csv"))
    if {"downloads", "nets"} & set(words) and not Path("downloads").exists():
        write_checkpoints(Path("downloads"))
    if "nets" in words and "--collection" not in words and not Path("nets").exists():
        run(["import", "downloads", "--model", "models/digits_mlp.py", "--collection", "nets"])


def write_wines(path):
    """Write scikit-learn's wines with a column that is named as in the documentation."""
    features, labels = load_wine(return_X_y=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*(f"x{column}" for column in range(features.shape[1])), "quality"])
        table.writerows([*row, label] for row, label in zip(features, labels, strict=True))


def write_checkpoints(folder):
    """Write networks of the shape of the digits' one."""
    folder.mkdir()
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    for seed in range(3):
        torch.manual_seed(seed)
        state = {name: torch.randn_like(value) for name, value in net.state_dict().items()}
        torch.save(state, folder / f"{seed}.pt")
