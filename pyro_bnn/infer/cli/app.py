"""The commands: ``pyro-bnn infer``, ``report``, ``quotient``, ``compare`` and others."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyro_bnn import __version__
from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.comparing import compare
from pyro_bnn.infer.cli.options import SchedulerOption, WorkersOption
from pyro_bnn.infer.cli.telling import console, told_in_a_sentence

if TYPE_CHECKING:
    from rich.console import Console

    from pyro_bnn.trace.collection import Collection

__all__ = ["main", "main_infer"]

_options: dict[str, Any] = {"pretty_exceptions_enable": False}
app = typer.Typer(
    help="Bayesian neural networks in Pyro: from a model script to a report.",
    no_args_is_help=True,
    **_options,
)
alone = typer.Typer(add_completion=False, **_options)


def _tell_version(wanted: bool) -> None:
    if wanted:
        console().print(f"pyro_bnn {__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@alone.command()
@app.command()
def infer(
    model: Annotated[
        Path | None, typer.Argument(help="Model script; models/digits_mlp.py by default.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe, a TOML file; inference/chees.toml by default.")
    ] = None,
    chains: Annotated[int | None, typer.Option(help="run.chains of the recipe.")] = None,
    draws: Annotated[int | None, typer.Option(help="run.draws of the recipe.")] = None,
    warmup: Annotated[int | None, typer.Option(help="run.warmup of the recipe.")] = None,
    seed: Annotated[int | None, typer.Option(help="run.seed of the recipe.")] = None,
    device: Annotated[str | None, typer.Option(help="run.device of the recipe.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; a new one under runs/ by default.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe, repeatable."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets; PYRO_BNN_DATA or data by default."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write summary.json but no report.html.")
    ] = False,
    scheduler: SchedulerOption = "none",
    workers: WorkersOption = None,
) -> None:
    """Run a recipe on a model script: sample, quotient, judge.

    Without arguments it infers a 64-32-10 network on scikit-learn's handwritten
    digits, in about two minutes on two cores.

    Example: pyro-bnn infer models/diabetes_mlp.py --chains 8 --out runs/diabetes
    """
    from pyro_bnn.datasets import ROOT_VARIABLE
    from pyro_bnn.infer.cli.choosing import assignment, chosen_run
    from pyro_bnn.infer.cli.running import carry_out
    from pyro_bnn.infer.distributed import Scheduler

    if data is not None:
        os.environ[ROOT_VARIABLE] = str(data)  # worker processes are to see it too
    flags = {"chains": chains, "draws": draws, "warmup": warmup, "seed": seed, "device": device}
    overrides = {f"run.{name}": value for name, value in flags.items() if value is not None}
    overrides |= dict(assignment(text) for text in settings or ())
    where = Scheduler(scheduler, workers=workers)
    blocks = where.address != "none"
    script, chosen, run = chosen_run(model, recipe, overrides, out, blocks=blocks, resume=resume)
    carry_out(script, chosen, run, where, resume=resume, report_wanted=not no_report)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run directory, or a NetCDF trace of any origin.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; report.html beside the trace by default.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Model script to predict by, for a trace that holds no predictions."),
    ] = None,
) -> None:
    """Write summary.json and report.html of a finished run or of any trace.

    With --model, predictions on the script's data are added to the trace first.

    Example: pyro-bnn report runs/diabetes
    """
    from pyro_bnn.infer.cli.judging import judge
    from pyro_bnn.infer.cli.predicting import predict_anew
    from pyro_bnn.infer.cli.script import ModelScript
    from pyro_bnn.infer.cli.stages import declare
    from pyro_bnn.infer.recipe import Recipe

    trace = _trace_of(run)
    if model is not None:
        with _held(run):
            predict_anew(trace, *declare(ModelScript.load(model), Recipe()))
    if run.is_dir():
        summary_file, report_file = run / "summary.json", out or run / "report.html"
    else:
        summary_file = trace.with_suffix(".summary.json")
        report_file = out or trace.with_suffix(".report.html")
    judged = judge(trace, summary_file, report_file)
    screen = console()
    judged.tell(screen)
    screen.print(f"report     {report_file}")


@app.command()
def quotient(
    run: Annotated[Path, typer.Argument(help="Run directory, or a NetCDF trace of any origin.")],
    model: Annotated[
        Path | None, typer.Option(help="Model script; that of the run by default.")
    ] = None,
    scaling: Annotated[
        str | None, typer.Option(help="Scales: min-mass (the default), unit-norm or none.")
    ] = None,
    sign: Annotated[
        bool | None, typer.Option("--sign/--no-sign", help="Settle the signs of units that flip.")
    ] = None,
    permutation: Annotated[
        str | None,
        typer.Option(
            help="Order of the units: sort (the default), align, activation-matching, "
            "nearest-neighbour, weight-matching or none."
        ),
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help="Sort by: first (the default), max, mean or norm.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Match to: barycentre (the default), first or previous draw."),
    ] = None,
    scheduler: SchedulerOption = "none",
    workers: WorkersOption = None,
) -> None:
    """Find the symmetries of the network and put every draw in canonical form.

    Adds the groups canonical_posterior and symmetry to the trace, and identities,
    which compare the draws with what the symmetries say about any posterior of
    the network. What is not given is as in the recipe of the run. Where units
    are matched (all orders but sort), draws from the prior that went through the
    same procedure are added as canonical_prior.

    Example: pyro-bnn quotient runs/diabetes --permutation align
    """
    from pyro_bnn.infer.cli.reducing import reductions
    from pyro_bnn.infer.cli.rundir import RunDirectory
    from pyro_bnn.infer.cli.script import ModelScript
    from pyro_bnn.infer.cli.stages import declare, quotient_collection
    from pyro_bnn.infer.cli.stages import quotient as divide
    from pyro_bnn.infer.distributed import Scheduler
    from pyro_bnn.infer.recipe import Recipe
    from pyro_bnn.symmetry import discover
    from pyro_bnn.trace.collection import is_collection

    where = Scheduler(scheduler, workers=workers)
    trace, directory = _trace_of(run), RunDirectory(run)
    if model is None:
        if not directory.model_file.is_file():
            raise UserError(f"{run} does not say which network it is of: name its --model script")
        model = directory.script_file()
    recipe = directory.recorded_recipe() if directory.recipe_file.is_file() else Recipe()
    choices: dict[str, Any] = {
        "scaling": scaling,
        "sign": sign,
        "permutation": permutation,
        "rule": rule,
        "reference": reference,
    }
    given = {f"quotient.{name}": value for name, value in choices.items() if value is not None}
    recipe = Recipe.parse(recipe.tables(), "the command line", given)
    density, _ = declare(ModelScript.load(model), recipe)
    group = discover(density)
    screen = console()
    screen.print(str(group))
    with where:
        if is_collection(trace):
            mapped = reductions(where, "quotient")
            found = quotient_collection(group, density, trace, recipe.quotient, mapped)
            _tell_skipped(screen, found)
            screen.print(f"quotient   {len(found)} members, into {trace}/canonical and quotient.nc")
            return
        with _held(run):
            divide(group, density, trace, recipe.quotient, reductions(where, "quotient"))
    screen.print(f"quotient   groups canonical_posterior, symmetry and identities in {trace}")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of safetensors or state_dict files.")],
    model: Annotated[Path, typer.Option(help="Model script whose sites the files hold.")],
    out: Annotated[Path, typer.Option(help="The NetCDF file to write.")] = Path("checkpoints.nc"),
    prefix: Annotated[str, typer.Option(help="Removed from the names in the files.")] = "",
    collection: Annotated[
        Path | None,
        typer.Option(help="Append to this collection instead, one network in memory at a time."),
    ] = None,
) -> None:
    """Read checkpoints of networks trained elsewhere into a trace; a file is a chain of one draw.

    Files that cannot be read or do not fit the model are left out and named.

    Example: pyro-bnn import downloads --model models/digits_mlp.py --out nets.nc
    """
    from pyro_bnn.infer.cli.script import ModelScript
    from pyro_bnn.infer.cli.stages import declare
    from pyro_bnn.infer.recipe import Recipe
    from pyro_bnn.symmetry import discover
    from pyro_bnn.trace import import_checkpoints, write_trace
    from pyro_bnn.trace.collection.importing import collect_checkpoints

    density, _ = declare(ModelScript.load(model), Recipe())
    shapes = density.stored
    dims = discover(density).dims
    if collection is not None:
        files, skipped = collect_checkpoints(folder, collection, shapes, prefix=prefix, dims=dims)
        out = collection
    else:
        trace, files, skipped = import_checkpoints(folder, shapes, prefix=prefix, dims=dims)
        write_trace(trace, out)
    screen = console()
    for name, reason in list(skipped.items())[:10]:
        screen.print(f"skipped    {name}: {reason}")
    screen.print(f"imported   {len(files)} files, {len(skipped)} skipped, into {out}")
    command = shlex.join(["pyro-bnn", "quotient", str(out), "--model", str(model)])
    screen.print(f"next       {command}")


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="Folder to write; made if it is missing.")],
    table: Annotated[
        Path | None,
        typer.Option(help="CSV file with column names; scikit-learn's diabetes table by default."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column to predict; the last one by default.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="classification or regression, if the target does not tell which."),
    ] = None,
) -> None:
    """Write a model script, a recipe and a README to start from.

    Words and whole numbers of few distinct values are classes; any other target
    is a quantity.

    Example: pyro-bnn new wine --table wine.csv --target quality
    """
    from pyro_bnn.infer.cli.new import start_project

    made = start_project(folder, table, target, task)
    screen = console()
    screen.print(f"new        {made.task} in {folder}/model.py, {folder}/recipe.toml")
    screen.print(f"table      {made.table}")
    for remark in made.remarks:
        screen.print(f"note       {remark}")
    there = shlex.quote(str(folder))
    screen.print(f"next       cd {there} && pyro-bnn infer model.py --recipe recipe.toml --out run")


@app.command()
def doctor() -> None:
    """Say what is installed and will be used, and test in seconds whether it works.

    Example: pyro-bnn doctor
    """
    import torch

    from pyro_bnn.infer.cli.doctor import facts, self_test
    from pyro_bnn.infer.cli.host import threads_to_use

    torch.set_num_threads(threads_to_use())
    screen = console()
    for name, found in facts():
        screen.print(f"{name:<12} {found}")
    screen.print()
    results = []
    for name, found, passed in self_test():
        screen.print(f"{name:<12} {'pass' if passed else 'FAIL'}  {found}")
        results.append(passed)
    if not all(results):
        sys.exit(1)


app.command()(compare)


def main() -> None:
    """Run ``pyro-bnn``."""
    told_in_a_sentence(app)


def main_infer() -> None:
    """Run ``python -m pyro_bnn.infer``."""
    told_in_a_sentence(alone)


def _tell_skipped(screen: Console, collection: Collection) -> None:
    for name, reason in list(collection.skipped.items())[:10]:
        screen.print(f"skipped    {name}: {reason}")
    if collection.skipped:
        screen.print(f"skipped    {len(collection.skipped)} of the collection in all")


def _held(run: Path) -> AbstractContextManager[None]:
    """Hold a run directory while its trace is written; a file has no lock."""
    from pyro_bnn.trace import locked

    return locked(run) if run.is_dir() else nullcontext()


def _trace_of(run: Path) -> Path:
    from pyro_bnn.trace import check_trace
    from pyro_bnn.trace.collection import is_collection

    if is_collection(run):
        check_trace(run)
        return run
    trace = run / "trace.nc" if run.is_dir() else run
    if not trace.is_file():
        raise UserError(
            f"{run} has no finished trace: give a run directory with a trace.nc, a NetCDF file, "
            "or a collection"
        )
    check_trace(trace)
    return trace
