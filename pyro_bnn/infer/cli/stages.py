"""The stages of a run, from a declared model to a trace with its quotient."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import torch
import xarray as xr
from torch import Tensor

import pyro_bnn
from pyro_bnn.data import Data
from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.line import record_line
from pyro_bnn.infer.cli.point import point_predictions, single_network
from pyro_bnn.infer.cli.predicting import record_corrupted, record_predictions
from pyro_bnn.infer.cli.rundir import RunDirectory
from pyro_bnn.infer.cli.script import ModelScript, name_of
from pyro_bnn.infer.distributed.outcome import BlockedRun
from pyro_bnn.infer.guides.run import GuideRun
from pyro_bnn.infer.mcmc import MCMC
from pyro_bnn.infer.predict import likelihood_kind
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.infer.settings.quotient import QuotientSettings
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry import OrbitMove, Quotient, SymmetryGroup, write_identities
from pyro_bnn.symmetry.members import quotient_of_members
from pyro_bnn.tasks import Map
from pyro_bnn.trace import Collection, assemble

__all__ = [
    "declare",
    "gradient_taken",
    "quotient",
    "quotient_collection",
    "record",
    "sample",
]


def declare(script: ModelScript, recipe: Recipe) -> tuple[LogDensity, Data]:
    """Turn a script into a log density on the recipe's device and at its temperature."""
    try:
        data = script.data.to(recipe.run.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device '{recipe.run.device}' cannot be used: {reason}") from error
    density = LogDensity(script.model, data.train.x, data.train.y).tempered(
        likelihood=recipe.run.likelihood_temperature, posterior=recipe.run.posterior_temperature
    )
    if recipe.run.chunk_rows is not None:
        density = density.chunked(recipe.run.chunk_rows)
    if recipe.compiles(density.rows):
        density = density.compiled()
    density = density.in_batches(recipe.rows_of_a_step)
    return density.augmented(data.train.transform), data


def sample(
    density: LogDensity,
    group: SymmetryGroup | None,
    recipe: Recipe,
    run: RunDirectory,
    *,
    quiet: bool = False,
) -> MCMC | GuideRun:
    """Warm up and draw, streaming to the run directory; go on where an earlier attempt ended.

    A `quiet` run shows no progress line.
    """
    begun = (run.path / "state.safetensors").exists()
    if recipe.guide is not None:
        fitted = GuideRun(
            recipe.guide.ensemble(density, recipe.run.chains),
            num_samples=recipe.run.draws,
            run_dir=run.path,
            seed=recipe.run.seed,
            dims=None if group is None else group.dims,
            segment_draws=recipe.run.segment_draws,
        )
        fitted.run(resume=True)
        return fitted
    assert recipe.kernel is not None
    mcmc = MCMC(
        recipe.kernel.kernel(density),
        num_samples=recipe.run.draws,
        warmup_steps=recipe.run.warmup,
        num_chains=recipe.run.chains,
        disable_progbar=quiet,
        seed=recipe.run.seed,
        run_dir=run.path,
        dims=None if group is None else group.dims,
        segment_draws=recipe.run.segment_draws,
        initial_params=None if begun else _start(density, recipe, run),
        move=_orbit_move(density, group, recipe),
        move_every=max(1, recipe.orbit.every),
    )
    mcmc.run(resume=True)
    return mcmc


def gradient_taken(
    mcmc: MCMC | GuideRun | BlockedRun, density: LogDensity
) -> tuple[str, tuple[str, ...]]:
    """Say which form the gradient of a run took and why, and which passes rewrote it."""
    if isinstance(mcmc, BlockedRun):
        return mcmc.gradient_path, mcmc.gradient_passes
    return density.gradient_path, density.gradient_passes


def record(
    mcmc: MCMC | GuideRun | BlockedRun,
    density: LogDensity,
    data: Data,
    recipe: Recipe,
    run: RunDirectory,
) -> None:
    """Join the segments into ``trace.nc``; add predictions and the point estimate."""
    kind = likelihood_kind(density, data.test.x, data.test.y)
    path, passes = gradient_taken(mcmc, density)
    started = time.perf_counter()
    point = single_network(density, recipe, run.path)
    seconds_point = time.perf_counter() - started
    script = run.recorded_script()
    attributes = {
        "model": name_of(script),
        "model_script": str(script),
        "data": data.name,
        "recipe": recipe.to_toml(),
        "method": recipe.method,
        "seed": recipe.run.seed,
        "device": recipe.run.device,
        "threads": torch.get_num_threads(),
        "gradient_path": path,
        "gradient_passes": list(passes),
        "creation_library": "pyro_bnn",
        "creation_library_version": pyro_bnn.__version__,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds_warmup": mcmc.progress.seconds_warmup,
        "seconds_sampling": mcmc.progress.seconds_sampling,
        "seconds_point_estimate": seconds_point,
        "gradients": mcmc.progress.gradients * recipe.run.chains,
        "dead_chains": sorted(mcmc.progress.dead),
        **run.recorded_start(),
    }
    if not isinstance(mcmc, MCMC) and mcmc.guide is not None:
        attributes["members"] = mcmc.guide.members
        attributes["batching"] = mcmc.guide.batching
        attributes["failed_members"] = [str(failure) for failure in mcmc.guide.failures]
    truth = xr.Dataset({"y": _labelled(data.test.y, "test")})
    extra = {
        "observed_data": xr.Dataset({"y": _labelled(data.train.y, "train")}),
        "predictions_constant_data": truth,
        "point_estimate": point_predictions(density, point, data.test, kind),
    }
    assemble(run.path, attributes, extra)
    record_predictions(run.trace_file, density, data, kind, recipe.run.seed)
    if data.corruptions:
        record_corrupted(run.trace_file, density, data, kind, recipe.run.seed)


def quotient(
    group: SymmetryGroup,
    density: LogDensity,
    trace: Path,
    settings: QuotientSettings,
    mapped: Map = map,
) -> None:
    """Add ``canonical_posterior``, ``symmetry``, ``identities`` and ``mode_line`` to a trace."""
    divide = _map(group, settings)
    divide.apply(trace, source=density, mapped=mapped)
    write_identities(trace, density, group)
    record_line(trace, density, divide)


def quotient_collection(
    group: SymmetryGroup,
    density: LogDensity,
    directory: Path,
    settings: QuotientSettings,
    mapped: Map,
) -> Collection:
    """Put every member of a collection in canonical form; return the collection as it was found."""
    collection = Collection.open(directory)
    quotient_of_members(_map(group, settings), collection, source=density, mapped=mapped)
    return collection


def _map(group: SymmetryGroup, settings: QuotientSettings) -> Quotient:
    return Quotient(
        group,
        scaling=None if settings.scaling == "none" else settings.scaling,
        sign=settings.sign,
        permutation=None if settings.permutation == "none" else settings.permutation,
        rule=settings.rule,
        reference=settings.reference,
    )


def _start(density: LogDensity, recipe: Recipe, run: RunDirectory) -> dict[str, Tensor] | None:
    """Optimise the members of the recipe, if it has any, and write down how they ended."""
    generator = torch.Generator(density.device).manual_seed(recipe.run.seed)
    start = recipe.start.positions(density, recipe.run.chains, generator)
    if start is None:
        return None
    run.record_start(start)
    return start.params


def _orbit_move(
    density: LogDensity, group: SymmetryGroup | None, recipe: Recipe
) -> OrbitMove | None:
    if recipe.orbit.every == 0:
        return None
    if group is None:
        raise UserError("orbit.every needs the symmetries: leave quotient.enabled at true")
    return OrbitMove(density, group, sweeps=recipe.orbit.sweeps)


def _labelled(values: Tensor, rows: str) -> xr.DataArray:
    names = [rows, *(f"y_dim_{axis}" for axis in range(values.ndim - 1))]
    return xr.DataArray(values.cpu().numpy(), dims=names)
