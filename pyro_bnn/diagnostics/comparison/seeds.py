"""Runs that differ in their seed only become one row, with an interval over seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.stats import t as student

from pyro_bnn.diagnostics.comparison.columns import COLUMNS
from pyro_bnn.diagnostics.comparison.entry import Entry
from pyro_bnn.diagnostics.comparison.resampling import LEVEL
from pyro_bnn.diagnostics.recipe import recipe_of

_COUNTS = ("modes", "draws")
_BY_KEY = {column.key: column for column in COLUMNS}


def recipe_key(trace: xr.DataTree) -> str | None:
    """Return what a run was made by, its seed left out; None if the trace does not say."""
    recipe = recipe_of(trace)
    if not recipe:
        return None
    run = dict(recipe.get("run", {}))
    if "seed" not in run:
        return None
    del run["seed"]
    stated = (str(trace.attrs.get("model", "")), str(trace.attrs.get("method", "")))
    return json.dumps([*stated, {**recipe, "run": run}], sort_keys=True, default=str)


def over_seeds(entries: Sequence[Entry]) -> Entry:
    """Average runs that differ in their seed.

    Parameters
    ----------
    entries
        Of one recipe, one at least.

    Returns
    -------
    Entry
        Means over seeds with Student's interval of probability 0.95 for the mean; a single entry
        as it is. What some of them lack, such as the distance of a reference to itself, is averaged
        over the others.
    """
    first = entries[0]
    if len(entries) == 1:
        return first
    count = len(entries)
    values: dict[str, float | int | str] = {}
    intervals = {}
    for key in dict.fromkeys(key for one in entries for key in one.values):
        listed = [one.values[key] for one in entries if key in one.values]
        if isinstance(listed[0], str) or key in _COUNTS:
            values[key] = listed[0]
            continue
        numbers = np.array(listed, dtype=np.float64)
        mean, known = float(numbers.mean()), len(numbers)
        values[key] = mean
        if known == 1:
            continue
        half = float(student.ppf((1 + LEVEL) / 2, known - 1) * numbers.std(ddof=1) / np.sqrt(known))
        if np.isfinite(half):
            column = _BY_KEY.get(key)
            least, most = (column.least, column.most) if column else (-np.inf, np.inf)
            intervals[key] = max(least, mean - half), min(most, mean + half)
    predictive = [one.log_predictive for one in entries if one.log_predictive is not None]
    together = None
    if len(predictive) == count:
        together = np.logaddexp.reduce(np.stack(predictive), axis=0) - np.log(count)
    notes = tuple(note for one in entries for note in one.notes)
    return Entry(f"{first.name} (mean of {count} seeds)", values, intervals, together, notes)
