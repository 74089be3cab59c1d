"""What a person meets first: help that fits, with an example; completion; logs without codes."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys

import pytest
import typer.main
from rich.text import Text
from typer.testing import CliRunner

import pyro_bnn
from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.app import app
from pyro_bnn.infer.cli.telling import console, told_in_a_sentence
from pyro_bnn.infer.progress_line import progress_line

COMMANDS = sorted(typer.main.get_command(app).commands)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns_and_has_an_example(name):
    shown = CliRunner().invoke(app, [name, "--help"] if name else ["--help"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80
    assert "\x1b[" not in shown.output
    if name:
        _, *lines = typer.main.get_command(app).commands[name].help.splitlines()
        assert any(line.startswith(f"Example: pyro-bnn {name}") for line in lines)
        # As they were written: where one is broken, a command cannot be copied.
        assert {line for line in lines if line not in shown.output} == set()
    else:
        assert all(command in shown.output for command in COMMANDS)


def test_the_version_is_told():
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"pyro_bnn {pyro_bnn.__version__}\n")


def test_help_does_not_wait_for_torch():
    asked = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from pyro_bnn.infer.cli.app import app\n"
        "assert CliRunner().invoke(app, ['infer', '--help']).exit_code == 0\n"
        "print({'numpy', 'pyro', 'torch', 'xarray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("package", ["pyro_bnn", "pyro_bnn.infer"])
def test_names_that_are_imported_on_demand_are_there(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    assert module.errors if package == "pyro_bnn" else module.recipe
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'wrong'"):
        _ = module.wrong


def test_shells_can_complete_the_commands():
    shown = CliRunner().invoke(app, ["--help"])
    assert "--install-completion" in shown.output
    found = CliRunner().invoke(
        app,
        [],
        prog_name="pyro-bnn",
        env={
            "_PYRO_BNN_COMPLETE": "complete_bash",
            "COMP_WORDS": "pyro-bnn qu",
            "COMP_CWORD": "1",
        },
    )
    assert found.output.split() == ["quotient"]


def test_a_log_has_no_codes_even_where_colours_are_forced(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_line("steps", "") as line:
        line.advance(line.add_task("", total=2))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    screen = console()
    screen.print(Text("words", style="bold"), "12 'text' runs/[old]/a:x:b[/c]")
    assert sys.stdout.getvalue() == "words 12 'text' runs/[old]/a:x:b[/c]\n"
    assert screen.width == 80


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("Site 'w' is odd: mend it\nand a table"), "pyro-bnn: site 'w' is odd: mend it"),
        (PermissionError(13, "Permission denied", "x.nc"), "x.nc cannot be read or written"),
        (RuntimeError("NetCDF: HDF error"), "a trace cannot be read (NetCDF: HDF error)"),
        (MemoryError(), "memory ran out"),
    ],
)
def test_what_is_wrong_outside_ends_in_one_line(capsys, error, expected):
    def fail():
        raise error

    with pytest.raises(SystemExit) as ended:
        told_in_a_sentence(fail)
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith("pyro-bnn: ")
    assert expected in told
    assert told.count("\n") == 1


def test_a_terminal_that_lacks_a_sign_ends_nothing(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    told_in_a_sentence(lambda: console().print("R-hat \u2013, ESS \u221e", end=""))
    sys.stdout.flush()
    assert written.getvalue() == b"R-hat ?, ESS ?"


def test_what_is_wrong_inside_keeps_its_traceback():
    def fail():
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        told_in_a_sentence(fail)
