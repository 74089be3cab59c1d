"""Write the page: the sections, put into the template."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from pyro_bnn.diagnostics.advice import constant_prediction, next_steps
from pyro_bnn.diagnostics.diagnosis import Diagnosis, diagnose
from pyro_bnn.diagnostics.format import ABSENT, number
from pyro_bnn.diagnostics.keys import SUMMARY_KEYS
from pyro_bnn.diagnostics.report.diversity import diversity_pictures, diversity_rows
from pyro_bnn.diagnostics.report.embeddings import missing_embeddings
from pyro_bnn.diagnostics.report.environment import environment
from pyro_bnn.diagnostics.report.facts import facts
from pyro_bnn.diagnostics.report.model import model_notes, model_pictures
from pyro_bnn.diagnostics.report.of_trace import TracePictures, trace_pictures
from pyro_bnn.diagnostics.report.pieces import Picture, missing_groups
from pyro_bnn.diagnostics.report.predictions import (
    ood_pictures,
    ood_rows,
    prediction_pictures,
    score_rows,
    uncertainty_notes,
)
from pyro_bnn.diagnostics.report.robustness import robustness_pictures, robustness_rows
from pyro_bnn.diagnostics.report.sampler import sampler_pictures, sampler_rows
from pyro_bnn.diagnostics.report.spaces import (
    finer_rows,
    layer_rows,
    space_pictures,
    space_rows,
    worst_scalars,
)
from pyro_bnn.diagnostics.report.symmetry import (
    exchangeability_rows,
    log_order,
    mixing_pictures,
    orbit_notes,
    orbit_rows,
    sorts_each_draw,
    statement_rows,
)
from pyro_bnn.diagnostics.summary import Value, summarize
from pyro_bnn.diagnostics.verdict import comparison, headline, verdicts
from pyro_bnn.trace import open_trace
from pyro_bnn.trace.atomic import replacing
from pyro_bnn.trace.dead_chains import without_dead_chains


def write_report(
    run: str | Path | xr.DataTree,
    path: str | Path,
    diagnosis: Diagnosis | None = None,
    drawn: Callable[[], TracePictures] | None = None,
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    run
        A trace, a run directory, or a NetCDF file, whose dead chains are left out. Any group may be
        missing; what cannot be shown is left out or said to be missing.
    path
        The HTML file. Pictures and styles are inside it.
    diagnosis
        What `diagnose` returned for this trace, so as not to compute it again.
    drawn
        Returns what `trace_pictures` does for this trace, if it is drawn elsewhere; called last.

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
            return write_report(without_dead_chains(trace), path, diagnosis, drawn)
        finally:
            trace.close()
    found = diagnose(run) if diagnosis is None else diagnosis
    page = render(run, found, drawn)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render(
    trace: xr.DataTree, found: Diagnosis, drawn: Callable[[], TracePictures] | None = None
) -> str:
    """Fill the template.

    Parameters
    ----------
    trace
        The trace.
    found
        Its diagnosis.
    drawn
        Returns the pictures that need the trace alone; called after all others are drawn.

    Returns
    -------
    str
        HTML.
    """
    summary = summarize(trace, found)
    page: str = (
        environment()
        .get_template("report.html.j2")
        .render(
            title=str(trace.attrs.get("model", "Bayesian neural network")),
            facts=facts(trace, found),
            headline=headline(found),
            comparison=comparison(found),
            verdicts=verdicts(found),
            next_steps=next_steps(trace, found),
            missing=missing_groups(trace),
            scores=score_rows(found),
            constant_prediction=constant_prediction(trace, found),
            has_point=found.point is not None,
            prediction=found.posterior,
            prediction_pictures=prediction_pictures(found),
            uncertainty_notes=uncertainty_notes(found),
            ood=ood_rows(found),
            ood_pictures=ood_pictures(found),
            robustness=robustness_rows(found),
            robustness_pictures=robustness_pictures(found),
            model_notes=model_notes(found),
            model_pictures=model_pictures(found),
            diversity=diversity_rows(found),
            diversity_members=0 if found.diversity is None else found.diversity.members,
            diversity_pictures=diversity_pictures(found),
            spaces=space_rows(found),
            finer=finer_rows(found),
            layers=layer_rows(found),
            has_null=found.null is not None,
            sorted=sorts_each_draw(trace),
            subsets=[result for result in found.convergence.values() if result.is_subset],
            has_canonical="canonical" in found.convergence,
            space_pictures=space_pictures(found),
            missing_embeddings=missing_embeddings(),
            orbits=found.orbits,
            orbit_rows=orbit_rows(found),
            log_order=log_order(found),
            orbit_notes=orbit_notes(found),
            exchangeability=exchangeability_rows(found),
            statements=statement_rows(found),
            mixing_pictures=mixing_pictures(found),
            worst=worst_scalars(trace, found),
            sampler=found.sampler,
            sampler_rows=sampler_rows(found),
            sampler_pictures=sampler_pictures(trace, found),
            recipe=str(trace.attrs.get("recipe", "")),
            summary=[(key, _plain(value), SUMMARY_KEYS[key]) for key, value in summary.items()],
            number=number,
            absent=ABSENT,
            **_of_trace(trace, drawn),
        )
    )
    return page


def _of_trace(
    trace: xr.DataTree, drawn: Callable[[], TracePictures] | None
) -> dict[str, list[Picture]]:
    pictures = trace_pictures(trace) if drawn is None else drawn()
    return {"embedding_pictures": pictures.embeddings, "quotient_pictures": pictures.quotient}


def _plain(value: Value) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value) if math.isfinite(value) else "null"
