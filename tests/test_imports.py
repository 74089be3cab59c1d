"""Who may import whom: the rooms of the package, read from its source."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pyro_bnn

SOURCE = Path(pyro_bnn.__file__).parent

# What each room may import, beside itself.
ALLOWED = {
    "allocator": set(),
    "openmp": set(),
    "on_demand": set(),
    "errors": set(),
    "halving": {"errors"},
    "graph": {"errors"},
    "corruption": {"errors"},
    "data": {"corruption", "errors"},
    "datasets": {"data", "errors"},
    "running_statistics": set(),
    "handlers": {"running_statistics"},
    "passes": set(),
    "gradient": {"graph", "passes"},
    "rows": set(),
    "tasks": set(),
    "sites": {"errors", "handlers"},
    "prototype": {"errors", "handlers", "rows", "running_statistics", "sites"},
    "pyro_model": {"errors", "graph", "handlers", "prototype", "rows", "sites"},
    "starts": {"handlers", "pyro_model"},
    "logdensity": {
        "errors",
        "gradient",
        "handlers",
        "prototype",
        "pyro_model",
        "rows",
        "sites",
        "starts",
    },
    "nn": {"errors", "running_statistics"},
    "trace": {"errors", "halving", "running_statistics"},
    "infer": {
        "allocator",
        "corruption",
        "errors",
        "halving",
        "handlers",
        "logdensity",
        "on_demand",
        "running_statistics",
        "sites",
        "trace",
    },
    "symmetry": {
        "allocator",
        "errors",
        "graph",
        "halving",
        "logdensity",
        "sites",
        "tasks",
        "trace",
    },
    "diagnostics": {"errors", "halving", "tasks", "trace"},
}

# The package face and the command line, which see everything.
OPEN = ("pyro_bnn", "pyro_bnn.infer.__main__", "pyro_bnn.infer.cli")

# Folders of scripts: they import the library, never the other way round.
SCRIPTS = {"models", "inference", "analysis", "benchmarks", "tests", "docs"}


class Import(NamedTuple):
    """One import statement: what it names, and whether it runs when the module is imported."""

    target: str
    line: int
    at_import: bool


def modules() -> dict[str, Path]:
    """Return the dotted name and the file of every module of the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if "shipped" not in parts:
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(source: str) -> Iterator[Import]:
    """Yield the imports of a source text, those inside of functions too."""
    later = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if lazy or typing:
            later.update(id(child) for child in ast.walk(node))
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) not in later)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(_target(node, alias.name), node.lineno, id(node) not in later)


def _target(node: ast.ImportFrom, name: str) -> str:
    base = "." * node.level + (node.module or "")
    return f"{base}.{name}" if f"{base}.{name}" in MODULES else base


def room(module: str) -> str:
    """Return the room that a module is in: the second part of its name."""
    return module.partition(".")[2].partition(".")[0]


def sees_everything(module: str) -> bool:
    """Whether the import rule leaves a module out."""
    return module in OPEN or module.startswith("pyro_bnn.infer.cli.")


def breaches(module: str, source: str) -> list[str]:
    """Say which imports of a module break the rule."""
    found = []
    for target, line, _ in imports(source):
        top = target.partition(".")[0]
        where = f"{module}, line {line}: imports {target}"
        if top in SCRIPTS or top == "":
            found.append(where)
        elif top == "pyro_bnn" and not sees_everything(module):
            own = room(module)
            if (room(target) != own and room(target) not in ALLOWED[own]) or sees_everything(
                target
            ):
                found.append(where)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module):
    assert breaches(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_every_room_has_a_rule():
    assert {room(module) for module in MODULES} - {""} == set(ALLOWED)


def test_the_rooms_have_an_order():
    order = list(graphlib.TopologicalSorter(ALLOWED).static_order())
    assert order.index("trace") < order.index("infer")


def test_no_modules_import_each_other_in_a_circle():
    graph = {}
    for module, path in MODULES.items():
        found = imports(path.read_text(encoding="utf-8"))
        targets = {i.target for i in found if i.at_import and i.target in MODULES}
        # A package's face is run before its modules in any case.
        graph[module] = {t for t in targets if not f"{module}.".startswith(f"{t}.")}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyro_bnn.trace.reader", "import pyro_bnn.infer.mcmc"),
        ("pyro_bnn.trace.reader", "from pyro_bnn import infer"),
        ("pyro_bnn.diagnostics.report", "def f():\n    from pyro_bnn.symmetry import discover"),
        ("pyro_bnn.symmetry.sort", "import pyro_bnn"),
        ("pyro_bnn.infer.mcmc", "from pyro_bnn.infer.cli.app import main"),
        ("pyro_bnn.infer.cli.app", "import models.digits_mlp"),
        ("pyro_bnn.nn.lift", "from .priors import Normal"),
    ],
)
def test_the_rule_finds_a_breach(module, source):
    assert len(breaches(module, source)) == 1
