from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import typer.main
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import pyro_bnn
from pyro_bnn.diagnostics import SUMMARY_KEYS
from pyro_bnn.infer.cli.app import app as command_line
from pyro_bnn.infer.recipe import Recipe

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # where the script that makes the gallery lies

from make_gallery import make as make_gallery  # noqa: E402

project = "pyro_bnn"
author = "The pyro_bnn developers"
copyright = author
version = release = pyro_bnn.__version__

extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build", "**/.jupyter_cache"]
source_suffix = {".md": "myst-nb"}
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Tutorials are run when the site is built; a page that did not change keeps its output.
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "remove"
nb_merge_streams = True  # what a cell prints is one block, however it came

# Names in single backticks are links where they can be resolved, emphasis where not.
default_role = "autolink"
nitpick_ignore_regex = [
    (
        "py:obj",
        r"(arviz|pyro|rich|torch|xarray)\..*",
    ),  # links to other sites would need the network
    ("py:obj", r"\w+"),  # names of parameters
]
smartquotes_action = "qe"  # two hyphens are an option, not a dash
autosummary_generate = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
toc_object_entries = False  # each has a heading, which the margin shows already

html_theme = "sphinx_book_theme"
html_title = "pyro_bnn"
templates_path = ["_templates"]
html_sidebars = {"**": ["home.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_persistent": [],
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}

# A page of reference for each, from the names that it exports.
ROOMS = [
    "pyro_bnn",
    "pyro_bnn.nn",
    "pyro_bnn.nn.architectures",
    "pyro_bnn.infer",
    "pyro_bnn.infer.kernels",
    "pyro_bnn.infer.guides",
    "pyro_bnn.infer.distributed",
    "pyro_bnn.trace",
    "pyro_bnn.symmetry",
    "pyro_bnn.diagnostics",
    "pyro_bnn.diagnostics.quality",
    "pyro_bnn.diagnostics.comparison",
]


def write_reference(app: Sphinx) -> None:
    """Write the pages that follow from the code: API, commands, keys, and the gallery."""
    folder = HERE / "reference" / "generated"
    folder.mkdir(exist_ok=True)
    for name in ROOMS:
        _write(folder / f"{name}.md", _api_page(name))
    _write(folder / "recipe_keys.txt", _recipe_keys())
    found = [(f"`{key}`", text) for key, text in SUMMARY_KEYS.items()]
    _write(folder / "summary_keys.txt", _table(("key", "meaning"), found))
    _write(folder / "commands.txt", _commands())
    make_gallery()


def _recipe_keys() -> str:
    tables = Recipe.documentation()
    guides = [found for heading, found in tables.items() if heading.startswith("[guide]")]
    shared = [row for row in guides[0] if all(row in found for found in guides)]
    parts = []
    for heading, found in tables.items():
        rows = found
        if heading.startswith("[guide]"):
            if found is guides[0]:
                parts.append(_key_table("`[guide]` of any name", shared))
            rows = [row for row in found if row not in shared]
        parts.append(_key_table(f"`{heading}`", rows))
    return "\n".join(parts)


def _key_table(heading: str, found: list[tuple[str, str, str]]) -> str:
    rows = [(f"`{key}`", _toml(default), text) for key, default, text in found]
    return f"### {heading}\n\n{_table(('key', 'default', 'meaning'), rows)}\n"


def _toml(default: str) -> str:
    value = ast.literal_eval(default)
    return "not set" if value is None else f"`{json.dumps(value)}`"


def _commands() -> str:
    parts = []
    for name, command in typer.main.get_command(command_line).commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        words = [
            (p.name.upper() if p.required else f"[{p.name.upper()}]")
            + ("..." if p.nargs == -1 else "")
            for p in arguments
        ]
        options = ["[OPTIONS]"] if len(command.params) > len(arguments) else []
        shown = " ".join(["pyro-bnn", name, *words, *options])
        rows = [
            (f"`{p.name.upper() if p in arguments else _option(p)}`", p.help or "")
            for p in command.params
        ]
        text, _, example = inspect.cleandoc(command.help or "").partition("Example: ")
        parts += [
            f"## {name}\n",
            f"```text\n{shown}\n```\n",
            f"{text}For example\n\n```text\n{example}\n```\n",
            _table(("argument or option", "meaning"), rows) if rows else "",
            "",
        ]
    return "\n".join(parts)


def _option(option: Any) -> str:
    words = ", ".join([*option.opts, *option.secondary_opts])
    return words if option.metavar is None else f"{words} {option.metavar}"


def _api_page(name: str) -> str:
    module = importlib.import_module(name)
    parts = [f"# {name}\n", _rst(f".. py:module:: {name}\n"), f"{module.__doc__}\n"]
    for exported in _exports(module):
        value = getattr(module, exported)
        home = getattr(value, "__module__", name).partition(".")[0]
        outer = name.rpartition(".")[0]
        if outer in ROOMS[1:] and exported in _exports(importlib.import_module(outer)):
            continue  # described on the page of the package around this one
        parts.append(f"## {exported}\n")
        if callable(value) and home != "pyro_bnn":
            parts.append(f"{exported} of `{home}`, unchanged.\n")
        else:
            parts.append(_rst(_directive(name, exported, value)))
    return "\n".join(parts)


def _rst(text: str) -> str:
    return f"```{{eval-rst}}\n{text}```\n"


def _exports(module: ModuleType) -> list[str]:
    return [str(name) for name in module.__all__]


def _directive(module: str, name: str, value: Any) -> str:
    if inspect.isclass(value):
        # What every kernel and every guide has is described once, with the class that they share.
        # Sphinx would print an attribute that is a class as an alias of a page that is not there.
        members = (
            ":members:\n   :special-members: __call__\n"
            "   :inherited-members: tuple, Module, BaseException, MCMCKernel, Kernel, Guide\n"
            "   :exclude-members: state_type\n"
        )
        return f".. autoclass:: {module}.{name}\n   {members}"
    if callable(value):
        return f".. autofunction:: {module}.{name}\n"
    return f".. py:data:: {module}.{name}\n\n   {_said_of(module, name)}\n"


def _said_of(package: str, variable: str) -> str:
    """Return what stands below a variable in the module that defines it."""
    for module in [m for m in sys.modules if m.startswith(f"{package}.")]:
        said = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", variable))
        if said is not None:
            return " ".join(said).strip()
    raise LookupError(f"{package}.{variable} has no docstring")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    cells = [[cell.replace("|", r"\|") for cell in row] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _write(path: Path, text: str) -> None:
    # A file that did not change keeps its time, so that only new pages are built.
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def skip_fields(
    app: Sphinx, kind: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of a NamedTuple, which its docstring describes."""
    return True if str(getattr(member, "__doc__", "")).startswith("Alias for field") else None


def name_classes(
    app: Sphinx,
    kind: str,
    name: str,
    found: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Write ``mapped=map`` where Sphinx would have ``mapped=<class 'map'>``."""
    if signature is not None:
        signature = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", signature)
    return signature, returns


def setup(app: Sphinx) -> None:
    """Connect the generated pages to the build."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-signature", name_classes)
