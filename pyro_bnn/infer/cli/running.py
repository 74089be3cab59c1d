"""One run, from a declared model to a report."""

from __future__ import annotations

import math
import shlex
import sys
import time
from contextlib import ExitStack
from textwrap import fill

import torch
from rich.console import Console

from pyro_bnn.data import Data
from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.blocks import sample_in_blocks
from pyro_bnn.infer.cli.judging import judge
from pyro_bnn.infer.cli.reducing import reductions
from pyro_bnn.infer.cli.rundir import RunDirectory
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.cli.stages import declare, gradient_taken, quotient, record, sample
from pyro_bnn.infer.cli.telling import console
from pyro_bnn.infer.distributed import Scheduler
from pyro_bnn.infer.distributed.outcome import BlockedRun
from pyro_bnn.infer.guides.run import GuideRun
from pyro_bnn.infer.mcmc import MCMC
from pyro_bnn.infer.predict import likelihood_kind
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry import SymmetryGroup, discover
from pyro_bnn.trace import locked

__all__ = ["carry_out"]


def carry_out(
    script: ModelScript,
    recipe: Recipe,
    run: RunDirectory,
    scheduler: Scheduler,
    *,
    resume: bool,
    report_wanted: bool,
) -> None:
    """Sample, record, divide and judge, and say what happens; stopped, say how to go on.

    Raises
    ------
    UserError
        If the model cannot be run, or another process has the directory.
    """
    started = time.perf_counter()
    torch.set_num_threads(recipe.run.threads)
    out = console()
    density, data = declare(script, recipe)
    # Told before hours of sampling instead of after.
    likelihood_kind(density, data.test.x, data.test.y)
    _tell_task(out, script, recipe, density, data)
    group = discover(density) if recipe.quotient.enabled else None
    if group is not None:
        units = ", ".join(f"{name}: {space.size}" for name, space in group.spaces.items())
        out.print(f"symmetry   hidden spaces {units or 'none'}; log |G| = {group.log_order:.1f}")
    try:
        with locked(run.path), ExitStack() as stack:
            if not resume:
                run.claim(recipe, script)
            out.print(f"sampling   into {run.path}")
            mcmc = _sampled(out, density, group, recipe, run, scheduler, stack)
            _tell_sampled(out, mcmc, density, recipe, run)
            record(mcmc, density, data, recipe, run)
            if group is not None:
                mapped = reductions(scheduler, "quotient")
                quotient(group, density, run.trace_file, recipe.quotient, mapped)
            out.print("judging    R-hat and ESS of weights, canonical weights and functions")
            report = run.report_file if report_wanted else None
            mapped = reductions(scheduler, "judging")
            judged = judge(run.trace_file, run.summary_file, report, mapped)
    except KeyboardInterrupt:
        out.print("stopped    every finished draw is saved; go on with")
        out.print(f"           pyro-bnn infer --resume --out {shlex.quote(str(run.path))}")
        sys.exit(130)
    judged.tell(out)
    out.print(f"finished   {math.ceil(time.perf_counter() - started)} s, {run.summary_file}")
    if report is not None:
        out.print(f"report     {report}")


def _sampled(
    out: Console,
    density: LogDensity,
    group: SymmetryGroup | None,
    recipe: Recipe,
    run: RunDirectory,
    scheduler: Scheduler,
    stack: ExitStack,
) -> MCMC | GuideRun | BlockedRun:
    """Sample; the scheduler stays open as long as the stack."""
    try:
        stack.enter_context(scheduler.for_device(recipe.run.device))
        if recipe.run.block is None:
            return sample(density, group, recipe, run)
        out.print(f"blocks     of {recipe.run.block}, in {scheduler.description}")
        return sample_in_blocks(recipe, run, scheduler)
    except UserError:
        run.release()
        raise


def _tell_task(
    out: Console, script: ModelScript, recipe: Recipe, density: LogDensity, data: Data
) -> None:
    settings = recipe.run
    out.print(
        f"model      {script.path}: {density.dim:,} weights, {len(data.train.x):,} rows"
        + (f" of {data.name}" if data.name else "")
    )
    out.print(
        f"recipe     {recipe.method}, {settings.chains} "
        + (f"chains, {settings.warmup} + " if recipe.guide is None else "members, ")
        + f"{settings.draws} draws, seed {settings.seed}, {settings.device}, "
        f"{settings.threads} thread" + ("s" if settings.threads > 1 else "")
    )
    out.print(f"gradients  {recipe.why_compiled(density.rows)}")


def _tell_sampled(
    out: Console,
    mcmc: MCMC | GuideRun | BlockedRun,
    density: LogDensity,
    recipe: Recipe,
    run: RunDirectory,
) -> None:
    if not_converged := run.recorded_start().get("members_not_converged"):
        out.print(
            f"members    {len(not_converged)} of {recipe.start.members} did not converge and are "
            f"kept: {', '.join(map(str, not_converged))}"
        )
    progress = mcmc.progress
    seconds = progress.seconds_warmup + progress.seconds_sampling
    out.print(
        f"sampled    {seconds:.0f} s, {progress.gradients * recipe.run.chains:,} gradients, "
        f"{progress.divergences} divergences"
    )
    path, passes = gradient_taken(mcmc, density)
    out.print(f"path       {path}")
    if passes:
        out.print(fill(f"passes     {', '.join(passes)}", 80, subsequent_indent=" " * 11))
    for failure in getattr(getattr(mcmc, "guide", None), "failures", []):
        out.print(f"failed     {failure}")
    if progress.dead:
        out.print(
            f"dead       {len(progress.dead)} of {recipe.run.chains} chains became NaN or infinite "
            f"and are left out: {', '.join(map(str, sorted(progress.dead)))}"
        )
