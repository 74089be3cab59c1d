"""All that is computed from a trace, once: the summary, the table and the report read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from pyro_bnn.diagnostics.convergence import (
    MAX_SCALARS,
    SPACES,
    SUBSET_SEED,
    Convergence,
    Space,
    convergence,
)
from pyro_bnn.diagnostics.diversity import Diversity, diversity
from pyro_bnn.diagnostics.exchangeability import Exchangeability, exchangeability
from pyro_bnn.diagnostics.finer import FINER_SCALARS, FinerConvergence, finer_convergence
from pyro_bnn.diagnostics.importance import Importance, importance
from pyro_bnn.diagnostics.loo import Loo, loo
from pyro_bnn.diagnostics.members import MemberStacking, member_stacking
from pyro_bnn.diagnostics.ood import GROUP as OOD
from pyro_bnn.diagnostics.ood import OutOfDistribution, ood_problem, out_of_distribution
from pyro_bnn.diagnostics.orbits import Orbits, orbits
from pyro_bnn.diagnostics.prediction import Prediction, point_prediction, posterior_prediction
from pyro_bnn.diagnostics.robustness import Robustness, robustness
from pyro_bnn.diagnostics.sampler import Sampler, sampler
from pyro_bnn.diagnostics.statements import Statement, statements
from pyro_bnn.tasks import Map

PAIRED_DRAWS = 64


@dataclass(frozen=True)
class Diagnosis:
    """The numbers behind a summary and a report.

    Attributes
    ----------
    convergence
        R-hat and ESS by space; a space whose group is missing is left out.
    null
        R-hat and ESS of canonical draws of the prior, the control of the space ``"canonical"``;
        None if the trace has no ``canonical_prior``.
    finer
        R-hat within chains, over members and of random projections, by space; that of the null
        control is under ``"null"``.
    posterior, point
        Predictions on the test split; None if the trace has none.
    ood
        Detection of inputs from elsewhere, by split; empty if the trace has none.
    ood_problem
        Why inputs from elsewhere cannot be judged, in a sentence; empty if they can or there are
        none.
    diversity, diversity_ood
        Distances of pairs of 64 draws as functions, on the test split and on inputs from
        elsewhere; None if the trace lacks the predictions.
    robustness
        Scores on corrupted inputs; None if the trace has none.
    loo
        PSIS-LOO over training rows; None if the trace has no usable ``log_likelihood``.
    importance
        Pareto k of a guide's members; None if the trace has no densities of a guide.
    stacking
        The mixture of chains that predicts best; None for one chain, or without predictions.
    sampler
        Divergences, energy, time and gradients.
    orbits
        The symmetry group; None if the trace has none.
    exchangeability
        The test of each hidden space; empty if the trace names none.
    statements
        The group's exact statements beside the draws; empty if the trace has none.
    """

    convergence: Mapping[Space, Convergence]
    null: Convergence | None
    finer: Mapping[Space, FinerConvergence]
    posterior: Prediction | None
    point: Prediction | None
    ood: Mapping[str, OutOfDistribution]
    ood_problem: str
    diversity: Diversity | None
    diversity_ood: Diversity | None
    robustness: Robustness | None
    loo: Loo | None
    importance: Importance | None
    stacking: MemberStacking | None
    sampler: Sampler
    orbits: Orbits | None
    exchangeability: Mapping[str, Exchangeability]
    statements: Sequence[Statement]


def diagnose(
    trace: xr.DataTree,
    max_scalars: int = MAX_SCALARS,
    seed: int = SUBSET_SEED,
    mapped: Map = map,
) -> Diagnosis:
    """Compute every diagnostic of a trace.

    Parameters
    ----------
    trace
        A trace with any of the groups ``posterior``, ``canonical_posterior``, ``canonical_prior``,
        ``symmetry``, ``identities``, ``sample_stats``, ``predictions``, ``predictions_ood``,
        ``predictions_constant_data``, ``predictions_corrupted``, ``log_likelihood``,
        ``point_estimate``.
    max_scalars
        R-hat and ESS of a larger space are those of a random subset of this size.
    seed
        Seed of the subset.
    mapped
        ``mapped(function, tasks)``, as `map`, for the tasks of the comparison of all pairs.

    Returns
    -------
    Diagnosis
        With None for what the trace lacks.
    """
    spaces = {space: convergence(trace, space, max_scalars, seed) for space in SPACES}
    fewer = min(max_scalars, FINER_SCALARS)
    order: tuple[Space, ...] = ("weight", "canonical", "null", "function")
    finer = {s: finer_convergence(trace, s, fewer, max_scalars, seed) for s in order}
    posterior = posterior_prediction(trace)
    problem = ood_problem(trace, posterior)
    return Diagnosis(
        convergence={space: found for space, found in spaces.items() if found is not None},
        null=convergence(trace, "null", max_scalars, seed),
        finer={space: found for space, found in finer.items() if found is not None},
        posterior=posterior,
        point=point_prediction(trace),
        ood=out_of_distribution(trace, posterior),
        ood_problem=problem,
        diversity=diversity(trace, "predictions", PAIRED_DRAWS, mapped=mapped),
        diversity_ood=None if problem else diversity(trace, OOD, PAIRED_DRAWS, mapped=mapped),
        robustness=robustness(trace),
        loo=loo(trace),
        importance=importance(trace),
        stacking=member_stacking(trace),
        sampler=sampler(trace),
        orbits=orbits(trace),
        exchangeability=exchangeability(trace),
        statements=statements(trace),
    )
