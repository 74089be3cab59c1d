"""What the documentation shows is what happens: commands, snippets and examples are run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
from pathlib import Path

import pyro
import pytest
import typer.main

import pyro_bnn
from pyro_bnn.infer.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?:\{code-block\} )?(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(pyro_bnn.__path__, "pyro_bnn.")
    if not module.name.endswith("__main__") and ".shipped" not in module.name
]


def snippets(page: Path, *languages: str) -> list[tuple[str, str, int]]:
    """Return language, text and line of each fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        (found[1], found[2], text[: found.start()].count("\n") + 1)
        for found in FENCE.finditer(text)
        if found[1] in languages
    ]


class Checker(doctest.OutputChecker):
    """Takes rounding errors, such as 4e-16, for equal: they differ from machine to machine."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        want, got = (re.sub(r"\b\d(\.\d+)?e-1\d\b", "0", text) for text in (want, got))
        return super().check_output(want, got, optionflags)


def run_doctest(test: doctest.DocTest) -> None:
    """Run examples and compare what they print."""
    report: list[str] = []
    runner = doctest.DocTestRunner(Checker(), verbose=False, optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.append, clear_globs=False)
    assert not report, "".join(report)


def id_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Work in an empty directory, with nothing left over in Pyro."""
    monkeypatch.chdir(tmp_path)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p, "python", "pycon")], ids=id_of)
def test_the_snippets_of_a_page_run_in_their_order(page):
    names = {"__name__": "snippet"}
    for language, text, line in snippets(page, "python", "pycon"):
        if language == "python":
            exec(compile("\n" * line + text, str(page), "exec"), names)
        else:
            test = doctest.DocTestParser().get_doctest(text, {}, id_of(page), str(page), line)
            test.globs = names  # not a copy: the next snippet goes on with what this one made
            run_doctest(test)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_docstring_run(name):
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        if test.examples:
            run_doctest(test)


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_links_to_files_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_files_that_the_architecture_names_exist():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = (ROOT / "docs" / "draw.svg").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", page))
    named |= {
        name.strip()
        for text in re.findall(r'class="name ink"[^>]*>([^<]+)<', picture)[1:]
        for name in text.split(",")
    }
    assert len(named) > 30
    places = (ROOT / "pyro_bnn", ROOT, ROOT / "pyro_bnn" / "infer" / "kernels")
    missing = {name for name in named if not any((place / name).exists() for place in places)}
    assert missing <= {"model.py"}  # in a run directory


def test_the_shell_commands_of_the_pages_name_options_that_exist():
    lines = [
        line.partition("pyro-bnn ")[2]
        for page in PAGES
        for _, text, _ in snippets(page, "bash")
        for line in text.replace("\\\n", "").splitlines()
        if "pyro-bnn " in line
    ]
    assert lines
    commands = typer.main.get_command(app).commands
    for line in lines:
        name, *words = line.split()
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_the_recipes_that_are_named_ship():
    named = {
        name
        for page in PAGES
        for name in re.findall(r"--recipe ([a-z]\S+\.toml)", page.read_text("utf-8"))
    } - {"mine.toml"}
    assert named
    missing = {
        name
        for name in named
        if not (ROOT / "inference" / name.removeprefix("inference/")).is_file()
    }
    assert not missing


def test_continuous_integration_runs_the_command_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- command: tests -->\n```bash\n(.+)\n```\n", text)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = re.search(r"^readme_command\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert function is not None
    assert "command=$(readme_command tests)" in script
    extracted = subprocess.run(
        ["bash", "-c", f"{function[0]}; readme_command tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert extracted.stdout.strip() == found[1]
