"""The report of a run: one HTML page that needs nothing beside it."""

from __future__ import annotations

import json
import math
import platform
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics import metrics
from pyro_bnn.diagnostics.blocks import gather
from pyro_bnn.diagnostics.convergence import Convergence
from pyro_bnn.diagnostics.diagnosis import Diagnosis, diagnose
from pyro_bnn.diagnostics.format import ABSENT, duration, number, percent
from pyro_bnn.diagnostics.prediction import Prediction
from pyro_bnn.diagnostics.summary import SUMMARY_KEYS, Value, summarize
from pyro_bnn.diagnostics.verdict import LOOSE, STRICT, comparison, headline, verdicts
from pyro_bnn.trace import open_trace
from pyro_bnn.trace.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORST = 4
_TRACE_POINTS = 500
_SCORES = (
    ("accuracy", "Accuracy", "higher is better"),
    ("rmse", "RMSE", "lower is better, in the units of y"),
    ("nll", "Negative log likelihood", "lower is better, nats an input"),
    ("brier", "Brier score", "lower is better, summed over classes"),
    ("ece", "Calibration error (ECE)", "lower is better, 15 bins"),
    ("coverage50", "Coverage of 50 % intervals", "0.5 if calibrated"),
    ("coverage90", "Coverage of 90 % intervals", "0.9 if calibrated"),
)
_SPACES = {
    "weight": "Weights, as sampled",
    "canonical": "Canonical weights",
    "function": "Functions",
}
_FROM_RECIPE = (
    ("kernel.name", "Kernel"),
    ("run.warmup", "Warm-up draws"),
    ("run.seed", "Seed"),
    ("run.device", "Device"),
    ("run.likelihood_temperature", "Temperature of the likelihood"),
    ("run.posterior_temperature", "Temperature of the posterior"),
)
_VERSIONS = ("torch", "pyro-ppl", "arviz-stats", "numpy")


@dataclass(frozen=True)
class Picture:
    """An embedded picture: `uri` for the page, `alt` for who cannot see it, and a caption."""

    uri: str
    alt: str
    caption: str


def write_report(
    run: str | Path | xr.DataTree, path: str | Path, diagnosis: Diagnosis | None = None
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    run
        A trace, a run directory, or a NetCDF file. Any group may be missing; what cannot be shown
        is left out or said to be missing.
    path
        The HTML file. Pictures and styles are inside it.
    diagnosis
        What `diagnose` returned for this trace, so as not to compute it again.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UserError
        If `run` is a path without a readable trace.
    """
    path = Path(path)
    if not isinstance(run, xr.DataTree):
        trace = open_trace(run)
        try:
            return write_report(trace, path, diagnosis)
        finally:
            trace.close()
    found = diagnose(run) if diagnosis is None else diagnosis
    page = render(run, found)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(trace: xr.DataTree, found: Diagnosis) -> str:
    """Fill the template.

    Parameters
    ----------
    trace
        The trace.
    found
        Its diagnosis.

    Returns
    -------
    str
        HTML.
    """
    summary = summarize(trace, found)
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pyro_bnn.diagnostics"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template("report.html.j2").render(
        title=str(trace.attrs.get("model", "Bayesian neural network")),
        facts=_facts(trace, found),
        headline=headline(found),
        comparison=comparison(found),
        verdicts=verdicts(found),
        scores=_scores(found),
        has_point=found.point is not None,
        prediction=found.posterior,
        prediction_pictures=_prediction_pictures(found),
        spaces=_spaces(found),
        subsets=[result for result in found.convergence.values() if result.is_subset],
        has_canonical="canonical" in found.convergence,
        space_pictures=_space_pictures(found),
        orbits=found.orbits,
        orbit_rows=_orbit_rows(found),
        log_order=_log_order(found),
        orbit_notes=_orbit_notes(found),
        worst=_worst(trace, found),
        sampler=found.sampler,
        sampler_rows=_sampler_rows(found),
        sampler_pictures=_sampler_pictures(trace, found),
        recipe=str(trace.attrs.get("recipe", "")),
        summary=[(key, _plain(value), SUMMARY_KEYS[key]) for key, value in summary.items()],
        number=number,
        absent=ABSENT,
    )
    return page


def _facts(trace: xr.DataTree, found: Diagnosis) -> list[tuple[str, str]]:
    attrs = trace.attrs
    sampler = found.sampler
    facts = [("Model", str(attrs["model"]))] if "model" in attrs else []
    if sampler.weights:
        facts.append(("Posterior", f"{sampler.weights:,} weights"))
    if sampler.draws:
        facts.append(("Sample", f"{sampler.chains:,} chains of {sampler.draws:,} draws"))
    if not math.isnan(sampler.seconds):
        facts.append(("Time", duration(sampler.seconds)))
    recipe = _recipe(str(attrs.get("recipe", "")))
    for path, name in _FROM_RECIPE:
        value = recipe.get(path)
        if value is not None:
            facts.append((name, str(value)))
    if "created_at" in attrs:
        facts.append(("Date", str(attrs["created_at"])[:16].replace("T", " ")))
    if "creation_library" in attrs:
        made = f"{attrs['creation_library']} {attrs.get('creation_library_version', '')}".strip()
        facts.append(("Written by", made))
    facts.append(("Report made with", _versions()))
    return facts


def _recipe(text: str) -> dict[str, Any]:
    """Read the values of a recipe by table and key, such as ``run.seed``."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
    return {
        f"{name}.{key}": value
        for name, table in tables.items()
        if isinstance(table, dict)
        for key, value in table.items()
    }


@cache
def _versions() -> str:
    parts = [f"Python {platform.python_version()}"]
    for name in _VERSIONS:
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(parts)


def _scores(found: Diagnosis) -> list[dict[str, Any]]:
    ours = found.posterior.scores() if found.posterior is not None else {}
    theirs = found.point.scores() if found.point is not None else {}
    return [
        {
            "name": name,
            "hint": hint,
            "posterior": number(ours.get(key)),
            "point": number(theirs.get(key)),
        }
        for key, name, hint in _SCORES
        if key in ours or key in theirs
    ]


def _spaces(found: Diagnosis) -> list[dict[str, str]]:
    return [
        {
            "name": _SPACES[space],
            "scalars": f"{len(result.labels):,}"
            + (f" of {result.total:,}" if result.is_subset else ""),
            "rhat_median": number(_over(np.median, result.rhat), fixed=True),
            "rhat_max": number(_over(np.max, result.rhat), fixed=True),
            "below": _share(result.rhat),
            "ess_median": _whole(_over(np.median, result.ess_bulk)),
            "ess_min": _whole(_over(np.min, result.ess_bulk)),
            "tail_median": _whole(_over(np.median, result.ess_tail)),
        }
        for space, result in found.convergence.items()
    ]


def _space_pictures(found: Diagnosis) -> list[Picture]:
    from pyro_bnn.diagnostics.plots.ess import plot_ess
    from pyro_bnn.diagnostics.plots.rhat import plot_rhat

    rhat: dict[str, NDArray[np.float64]] = {
        space: result.rhat for space, result in found.convergence.items()
    }
    ess: dict[str, NDArray[np.float64]] = {
        space: result.ess_bulk for space, result in found.convergence.items()
    }
    pictures = []
    if any(np.isfinite(values).any() for values in rhat.values()):
        pictures.append(
            _picture(
                plot_rhat(rhat),
                "Histograms of R-hat in each space on one logarithmic axis.",
                "R-hat: the further right, the more the chains disagree.",
            )
        )
    if any(np.isfinite(values).any() for values in ess.values()):
        pictures.append(
            _picture(
                plot_ess(ess),
                "Histograms of bulk effective sample size in each space on one logarithmic axis.",
                "Effective sample size: the further right, the more the draws are worth.",
            )
        )
    return pictures


def _prediction_pictures(found: Diagnosis) -> list[Picture]:
    if found.posterior is None:
        return []
    both = {"posterior mean": found.posterior}
    if found.point is not None:
        both["point estimate"] = found.point
    if found.posterior.is_classification:
        return _classification_pictures(found.posterior, both)
    return _regression_pictures(found.posterior, both)


def _classification_pictures(ours: Prediction, both: dict[str, Prediction]) -> list[Picture]:
    from pyro_bnn.diagnostics.plots.reliability import plot_reliability
    from pyro_bnn.diagnostics.plots.uncertainty import plot_entropy

    if ours.mean is None or ours.y is None:
        return []
    tables = {
        name: metrics.reliability(one.mean, one.y)
        for name, one in both.items()
        if one.mean is not None and one.y is not None
    }
    right = ours.mean.argmax(axis=1) == ours.y
    return [
        _picture(
            plot_reliability(tables),
            "Share of right answers against confidence, with the diagonal of perfect calibration.",
            "Reliability: below the diagonal, predictions are more confident than right.",
        ),
        _picture(
            plot_entropy(metrics.entropy(ours.mean), right, ours.mean.shape[1]),
            "Histograms of predictive entropy for right and for wrong answers.",
            "Uncertainty: a useful posterior is uncertain where it is wrong.",
        ),
    ]


def _regression_pictures(ours: Prediction, both: dict[str, Prediction]) -> list[Picture]:
    from pyro_bnn.diagnostics.plots.pit import plot_pit
    from pyro_bnn.diagnostics.plots.uncertainty import plot_intervals

    pictures = []
    pits = {name: one.pit for name, one in both.items() if one.pit is not None}
    if pits:
        pictures.append(
            _picture(
                plot_pit(pits),
                "Share of observations inside central predictive intervals of each probability.",
                "Coverage: below the diagonal, the predictive intervals are too narrow.",
            )
        )
    if ours.mean is not None and ours.spread is not None and ours.y is not None:
        pictures.append(
            _picture(
                plot_intervals(ours.mean, ours.spread, ours.y),
                "Predictive means against observations with bars of two standard deviations.",
                "Predictions on the test split; the bars show how far the draws' means spread.",
            )
        )
    return pictures


def _orbit_rows(found: Diagnosis) -> list[tuple[str, str, str]]:
    if found.orbits is None:
        return []
    return [
        (name, f"{found.orbits.sizes[name]:,}", f"{count:,} of {found.orbits.samples:,}")
        for name, count in found.orbits.distinct.items()
    ]


def _log_order(found: Diagnosis) -> str:
    if found.orbits is None or math.isnan(found.orbits.log_order):
        return ""
    return f"{found.orbits.log_order / math.log(10):.1f}"


def _orbit_notes(found: Diagnosis) -> list[tuple[str, str]]:
    if found.orbits is None:
        return []
    notes = list(found.orbits.notes.items())
    if not math.isnan(found.orbits.mass_after):
        before, after = number(found.orbits.mass_before), number(found.orbits.mass_after)
        notes.append(("Sum of squared weights, median", f"{before} sampled, {after} canonical"))
    return notes


def _worst(trace: xr.DataTree, found: Diagnosis) -> dict[str, Any] | None:
    """Picture the scalars of highest R-hat, canonical where there are any."""
    from pyro_bnn.diagnostics.plots.facets import scalar_tree
    from pyro_bnn.diagnostics.plots.rank import plot_ranks
    from pyro_bnn.diagnostics.plots.trace import plot_traces

    result = found.convergence.get("canonical") or found.convergence.get("weight")
    if result is None or not (worst := result.worst(_WORST)):
        return None
    group = "canonical_posterior" if result.space == "canonical" else "posterior"
    draws = _draws(trace[group].to_dataset(), result, worst)
    diverging = _diverging(trace, draws.shape)
    step = max(1, draws.shape[2] // _TRACE_POINTS)
    labels = [result.labels[i] for i in worst]
    tree = scalar_tree(
        labels, draws[:, :, ::step], None if diverging is None else diverging[:, ::step]
    )
    titles = [
        f"{label}   R-hat {number(float(result.rhat[i]), fixed=True)}"
        for label, i in zip(labels, worst, strict=True)
    ]
    pictures = [
        _picture(
            plot_traces(tree, titles),
            "Draws of the worst scalars, a line a chain.",
            "Traces: chains that mix lie on top of each other."
            + ("" if diverging is None or not diverging.any() else " Ticks: divergences.")
            + (f" Every {step}th draw is shown." if step > 1 else ""),
        )
    ]
    if result.chains > 1:
        pictures.append(
            _picture(
                plot_ranks(tree, titles),
                "Difference of each chain's rank distribution from uniform.",
                "Ranks: how far each chain's rank distribution is from uniform. Chains that agree"
                " stay inside the grey 99 % band.",
            )
        )
    rows = [
        (
            result.labels[i],
            number(float(result.rhat[i]), fixed=True),
            _whole(float(result.ess_bulk[i])),
            _whole(float(result.ess_tail[i])),
        )
        for i in result.worst(8)
    ]
    name = "canonical weights" if result.space == "canonical" else "weights"
    return {"name": name, "rows": rows, "pictures": pictures, "subset": result.is_subset}


def _draws(group: xr.Dataset, result: Convergence, worst: list[int]) -> NDArray[Any]:
    wanted = [_position(group, result.labels[i]) for i in worst]
    values: dict[tuple[str, int], NDArray[Any]] = {}
    picks: dict[str, list[int]] = {}
    for name, index in wanted:
        picks.setdefault(name, []).append(index)
    arrays = {name: np.asarray(index, dtype=np.int64) for name, index in picks.items()}
    for name, part, block in gather(group, arrays):
        for row, index in enumerate(part):
            values[name, int(index)] = block[row]
    return np.stack([values[key] for key in wanted])


def _position(group: xr.Dataset, label: str) -> tuple[str, int]:
    if label in group:
        return label, 0
    name, _, inside = label.removesuffix("]").rpartition("[")
    shape = group[name].transpose("chain", "draw", ...).shape[2:]
    return name, int(np.ravel_multi_index([int(i) for i in inside.split(", ")], shape))


def _diverging(trace: xr.DataTree, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    values = _stat(trace, "diverging")
    return None if values is None or values.shape != shape[1:] else values > 0


def _sampler_rows(found: Diagnosis) -> list[tuple[str, str]]:
    sampler = found.sampler
    function = found.convergence.get("function")
    ess = math.nan if function is None else _over(np.median, function.ess_bulk)
    rows = [
        ("Warm-up", duration(sampler.seconds_warmup)),
        ("Sampling", duration(sampler.seconds_sampling)),
        ("Gradient evaluations, all chains", _whole(sampler.gradients)),
        ("Leapfrog steps a draw, mean", number(sampler.steps)),
        ("Step size, mean", number(sampler.step_size)),
        ("Deepest tree", _whole(sampler.tree_depth)),
        (
            "Acceptance rate, mean",
            ABSENT if sampler.acceptance is None else number(float(sampler.acceptance.mean())),
        ),
        (
            "Divergent transitions",
            ABSENT if sampler.divergences is None else f"{int(sampler.divergences.sum()):,}",
        ),
        ("Draws with NaN or infinity", f"{sampler.nonfinite:,}"),
        (
            "Function-space ESS a second, median",
            number(ess / sampler.seconds) if sampler.seconds > 0 else ABSENT,
        ),
    ]
    return [(name, value) for name, value in rows if value != ABSENT]


def _sampler_pictures(trace: xr.DataTree, found: Diagnosis) -> list[Picture]:
    from pyro_bnn.diagnostics.plots.adaptation import plot_adaptation
    from pyro_bnn.diagnostics.plots.divergences import plot_divergences
    from pyro_bnn.diagnostics.plots.energy import plot_energies

    pictures = []
    energy = _stat(trace, "energy")
    if energy is not None and energy.shape[1] > 3 and np.isfinite(energy).all() and np.ptp(energy):
        pictures.append(
            _picture(
                plot_energies(energy),
                "BFMI of each chain, and densities of energy and of its change.",
                "Energy: the two distributions should be about as wide; a chain left of the dashes"
                " (BFMI 0.3) explores its energies slowly.",
            )
        )
    acceptance, step_size = _stat(trace, "acceptance_rate"), _stat(trace, "step_size")
    if acceptance is not None or step_size is not None:
        pictures.append(
            _picture(
                plot_adaptation(acceptance, step_size),
                "Acceptance rate and step size over the draws.",
                "Acceptance and step size: level lines mean that adaptation had ended.",
            )
        )
    divergences = found.sampler.divergences
    if divergences is not None and divergences.any():
        pictures.append(
            _picture(
                plot_divergences(divergences, found.sampler.draws),
                "Number of divergent transitions of each chain.",
                "Divergences of each chain.",
            )
        )
    return pictures


def _stat(trace: xr.DataTree, name: str) -> NDArray[np.float64] | None:
    if "sample_stats" not in trace.children or name not in trace["sample_stats"]:
        return None
    values = trace["sample_stats"][name].transpose("chain", "draw").to_numpy()
    return np.asarray(values, dtype=np.float64)


def _picture(picture: Figure, alt: str, caption: str) -> Picture:
    from pyro_bnn.diagnostics.plots.style import data_uri

    return Picture(data_uri(picture), alt, caption)


def _over(reduce: Callable[[Any], Any], values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(reduce(defined)) if len(defined) else math.nan


def _share(rhat: NDArray[np.float64]) -> str:
    defined = rhat[~np.isnan(rhat)]
    if not len(defined):
        return ABSENT
    return " / ".join(percent(float(np.mean(defined <= limit))) for limit in (STRICT, LOOSE))


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else number(value)


def _plain(value: Value) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value) if math.isfinite(value) else "null"
