from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import typer.main
from sphinx.application import Sphinx

HERE = Path(__file__).parent
if importlib.util.find_spec("pyro_bnn") is None:
    sys.path.insert(0, str(HERE.parent))

import pyro_bnn
from pyro_bnn.diagnostics import SUMMARY_KEYS
from pyro_bnn.infer.cli.app import app as command_line
from pyro_bnn.infer.recipe import Recipe

project = "pyro_bnn"
author = "The pyro_bnn developers"
copyright = author
version = release = pyro_bnn.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Names in single backticks are links where they can be resolved, emphasis where not.
default_role = "autolink"
nitpick_ignore_regex = [
    (
        "py:obj",
        r"(arviz|pyro|rich|torch|xarray)\..*",
    ),  # links to other sites would need the network
    ("py:obj", r"\w+"),  # names of parameters
]
autosummary_generate = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False

html_theme = "sphinx_book_theme"
html_title = "pyro_bnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}

# A page of reference for each, from the names that it exports.
ROOMS = {
    "pyro_bnn": "The face of the package",
    "pyro_bnn.nn": "Declare: networks, priors, likelihoods",
    "pyro_bnn.infer": "Infer: kernels and MCMC",
    "pyro_bnn.trace": "Record: traces",
    "pyro_bnn.symmetry": "Quotient: symmetries",
    "pyro_bnn.diagnostics": "Judge: diagnostics and reports",
}


def write_reference(app: Sphinx) -> None:
    """Write the pages that follow from the code: API, commands, recipe keys, summary keys."""
    folder = HERE / "reference" / "generated"
    folder.mkdir(exist_ok=True)
    for name, title in ROOMS.items():
        _write(folder / f"{name}.md", _api_page(name, title))
    keys = [(f"`{key}`", f"`{default}`", text) for key, default, text in Recipe.documentation()]
    _write(folder / "recipe_keys.txt", _table(("key", "default", "meaning"), keys))
    found = [(f"`{key}`", text) for key, text in SUMMARY_KEYS.items()]
    _write(folder / "summary_keys.txt", _table(("key", "meaning"), found))
    _write(folder / "commands.txt", _commands())


def _commands() -> str:
    parts = []
    for name, command in typer.main.get_command(command_line).commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        words = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
        shown = " ".join(["pyro-bnn", name, *words, "[OPTIONS]"])
        rows = [
            (f"`{p.name.upper() if p in arguments else ', '.join(p.opts)}`", p.help or "")
            for p in command.params
        ]
        text = inspect.cleandoc(command.help or "")
        parts += [f"## {name}\n", f"```\n{shown}\n```\n", f"{text}\n", _table(("", ""), rows), ""]
    return "\n".join(parts)


def _api_page(name: str, title: str) -> str:
    module = importlib.import_module(name)
    parts = [
        f"# {title}\n",
        f"```{{eval-rst}}\n.. py:module:: {name}\n```\n",
        f"{module.__doc__}\n",
    ]
    for exported in _exports(module):
        value = getattr(module, exported)
        if getattr(value, "__module__", name).startswith("pyro_bnn") or not callable(value):
            parts.append(
                f"## {exported}\n\n```{{eval-rst}}\n{_directive(name, exported, value)}```\n"
            )
        else:
            home = f"{value.__module__.partition('.')[0]}"
            parts.append(f"## {exported}\n\n{exported} of `{home}`, unchanged.\n")
    return "\n".join(parts)


def _exports(module: ModuleType) -> list[str]:
    return [str(name) for name in module.__all__]


def _directive(module: str, name: str, value: Any) -> str:
    if inspect.isclass(value):
        return f".. autoclass:: {module}.{name}\n   :members:\n   :inherited-members: tuple\n"
    if callable(value):
        return f".. autofunction:: {module}.{name}\n"
    return f".. autodata:: {module}.{name}\n   :no-value:\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)


def _write(path: Path, text: str) -> None:
    # A file that did not change keeps its time, so that only new pages are built.
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connect the generated pages to the build."""
    app.connect("builder-inited", write_reference)
