"""Compare runs of one model script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from pyro_bnn.diagnostics.comparison.entry import Entry, entry, unscored
from pyro_bnn.diagnostics.comparison.resampling import RESAMPLES
from pyro_bnn.diagnostics.comparison.seeds import over_seeds, recipe_key
from pyro_bnn.diagnostics.comparison.table import Comparison
from pyro_bnn.diagnostics.stacking import stacking_weights
from pyro_bnn.errors import UserError
from pyro_bnn.tasks import Map
from pyro_bnn.trace import open_trace
from pyro_bnn.trace.dead_chains import without_dead_chains

Run = str | Path | xr.DataTree


def compare(
    runs: Sequence[str | Path] | Mapping[str, Run],
    reference: Run | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    mapped: Map = map,
) -> Comparison:
    """Put runs on one model script into one table.

    Runs that differ in their seed only are averaged, with an interval over seeds; the others have
    bootstrap intervals over test inputs (over draws for the MMD). Scores on other test labels than
    those of the first run are left out, as they are of other questions.

    Parameters
    ----------
    runs
        Run directories or NetCDF files, or traces by name; their dead chains are left out.
    reference
        What MMD, agreement and total variation are measured to: a long run, or an ensemble.
    resamples
        Bootstrap samples behind each interval.
    seed
        Of the bootstrap.
    mapped
        ``mapped(function, tasks)``, as `map`, for the tasks of the distances to the reference:
        that of a `pyro_bnn.infer.distributed.Scheduler` computes them on a cluster. The result
        is the same, bit for bit.

    Returns
    -------
    Comparison
        A row a run. What could not be compared is said in its `notes`.

    Raises
    ------
    UserError
        If there are no runs.
    """
    named = runs if isinstance(runs, Mapping) else _named([Path(run) for run in runs])
    if not named:
        raise UserError("there are no runs to compare: name one at least.")
    with ExitStack() as stack:
        traces = {name: _opened(run, stack) for name, run in named.items()}
        target = None if reference is None else _opened(reference, stack)
        notes, apart = _other_labels(traces)
        notes += _differences(traces)
        groups: dict[str, list[Entry]] = {}
        seen: set[tuple[str | None, str]] = set()
        for name, trace in traces.items():
            made = recipe_key(trace), str(trace.attrs.get("seed", ""))
            # A run of an unknown recipe, or of a seed that was had before, is a row of its own.
            key = f"name {name}" if made[0] is None or made in seen else made[0]
            seen.add(made)
            other = target
            if target is not None and _same(named[name], reference):
                notes.append(f"{name} is the reference itself: its distance to it is left out.")
                other = None
            one = entry(name, trace, other, resamples, seed, mapped)
            groups.setdefault(key, []).append(unscored(one) if name in apart else one)
    entries = _stacked([over_seeds(group) for group in groups.values()])
    notes += [note for one in entries for note in one.notes]
    return Comparison(tuple(entries), tuple(notes), reference is not None)


def _named(paths: list[Path]) -> dict[str, Run]:
    """Name runs by their last folder, by the whole path where that is not enough."""
    # A folder's name may have a dot in it, such as that of a temperature.
    short = [path.name if path.is_dir() else path.stem for path in paths]
    return {
        name if short.count(name) == 1 else str(path): path
        for name, path in zip(short, paths, strict=True)
    }


def _opened(run: Run, stack: ExitStack) -> xr.DataTree:
    if isinstance(run, xr.DataTree):
        return without_dead_chains(run)
    trace = open_trace(run)
    stack.callback(trace.close)
    return without_dead_chains(trace)


def _same(run: Run, reference: Run | None) -> bool:
    """Whether two runs are one; of one set of draws, no distance can be estimated."""
    if isinstance(run, xr.DataTree) or isinstance(reference, xr.DataTree) or reference is None:
        return run is reference
    return _file(run) == _file(reference)


def _file(run: str | Path) -> Path:
    """Name the file of a run, whether the run is given by that or by its directory."""
    path = Path(run).resolve()
    return path / "trace.nc" if (path / "trace.nc").is_file() else path


def _other_labels(traces: Mapping[str, xr.DataTree]) -> tuple[list[str], set[str]]:
    """Say which runs have no test labels, and which others than the first; name the latter."""
    group = "predictions_constant_data"
    known = {
        name: trace[group]["y"].to_numpy()
        for name, trace in traces.items()
        if group in trace.children and "y" in trace[group]
    }
    notes = [f"{name}: the trace holds no test labels." for name in traces if name not in known]
    first = next(iter(known), "")
    apart = {name for name, y in known.items() if not np.array_equal(known[first], y)}
    notes += [
        f"Runs {first} and {name} were judged on different test splits ({len(known[first]):,} and"
        f" {len(known[name]):,} labels): the scores of {name} are left out."
        for name in known
        if name in apart
    ]
    return notes, apart


def _differences(traces: Mapping[str, xr.DataTree]) -> list[str]:
    """Say in which respects the runs are not of one model and one data set."""
    notes = []
    for key, words in (("model", "model"), ("data", "data")):
        stated = {name: str(trace.attrs.get(key, "")) for name, trace in traces.items()}
        if len(set(stated.values())) > 1:
            listed = ", ".join(f"{name}: {value or 'not stated'}" for name, value in stated.items())
            notes.append(f"The runs differ in their {words} ({listed}).")
    sites = {
        name: {
            str(site): trace["posterior"][str(site)].transpose("chain", "draw", ...).shape[2:]
            for site in trace["posterior"].data_vars
        }
        for name, trace in traces.items()
        if "posterior" in trace.children
    }
    first = next(iter(sites), None)
    notes += [
        f"The weights of {first} and {other} have different names or shapes."
        for other in sites
        if first is not None and sites[other] != sites[first]
    ]
    return notes


def _stacked(entries: list[Entry]) -> list[Entry]:
    known = {one.name: one.log_predictive for one in entries if one.log_predictive is not None}
    if len(known) < 2:
        return entries
    weights = stacking_weights(np.stack(list(known.values())))
    by_name = dict(zip(known, weights.tolist(), strict=True))
    return [
        replace(one, values={**one.values, "stacking": by_name[one.name]})
        if one.name in by_name
        else one
        for one in entries
    ]
