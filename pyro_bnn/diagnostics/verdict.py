"""What the numbers say, in words, each sentence with the rule that it follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pyro_bnn.diagnostics.convergence import SPACES, Convergence, Space
from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import number, percent

Level = Literal["good", "fair", "poor", "unknown"]

STRICT = 1.01
LOOSE = 1.05
ENOUGH = 400.0
LOW_BFMI = 0.3
UNLIKELY = 0.01
DOUBTFUL = 0.05

_OF = {
    "weight": "Weights",
    "canonical": "Canonical weights",
    "function": "Functions (predictions)",
}


@dataclass(frozen=True)
class Verdict:
    """One judgement.

    Attributes
    ----------
    level
        ``"good"``, ``"fair"``, ``"poor"`` or ``"unknown"``.
    subject, text
        What is judged, and the sentence.
    """

    level: Level
    subject: str
    text: str


def headline(found: Diagnosis) -> Verdict:
    """Say in one sentence what can be trusted.

    Parameters
    ----------
    found
        The diagnosis.

    Returns
    -------
    Verdict
        Its level is that of the functions, or of the weights where there are no predictions.
    """
    levels = {space: convergence_level(result) for space, result in found.convergence.items()}
    if not levels:
        return Verdict("unknown", "", "The trace holds no draws whose convergence could be judged.")
    main: Space = next(s for s in ("function", "weight", "canonical") if s in levels)
    level = levels[main]
    what = {
        "function": "predictions on the test inputs",
        "weight": "weights",
        "canonical": "canonical weights",
    }
    result = found.convergence[main]
    rhat = result.rhat[~np.isnan(result.rhat)]
    size = ""
    if len(rhat):
        high = number(float(rhat.max()), fixed=True)
        size = f" (median {np.median(rhat):.3f}, maximum {high})"
    sentence = {
        "good": f"The chains agree on the {what[main]}: every R-hat is at most {STRICT}{size}.",
        "fair": f"The chains agree on the {what[main]} closely enough for most purposes: every "
        f"R-hat is at most {LOOSE}{size}.",
        "poor": f"The chains do not agree on the {what[main]}: R-hat exceeds {LOOSE}{size}."
        if are_apart(result)
        else f"Of {len(result.nonfinite):,} of the {what[main]} some draws are not finite, and so "
        f"they have no R-hat; of all others it is at most {LOOSE}{size}.",
        "unknown": f"Whether the chains agree on the {what[main]} is unknown: R-hat needs two "
        "chains and four draws, finite and not constant.",
    }[level]
    bad = [what[s] for s in SPACES if s in levels and s != main and are_apart(found.convergence[s])]
    if bad and level in {"good", "fair"}:
        names = " and ".join(bad)
        sentence += (
            f" They do not agree on the {names}, so a statement about a single weight holds "
            "only for the mode that a chain sits in."
        )
    return Verdict(level, what[main], sentence)


def verdicts(found: Diagnosis) -> list[Verdict]:
    """Judge each space and the sampler.

    Parameters
    ----------
    found
        The diagnosis.

    Returns
    -------
    list of Verdict
        In the order in which a reader needs them.
    """
    spaces = [
        _space(found.convergence[space], found.null if space == "canonical" else None)
        for space in reversed(SPACES)
        if space in found.convergence
    ]
    return [*spaces, *_mixing(found), *_sampler(found)]


def convergence_level(result: Convergence) -> Level:
    """Grade a space: good if every R-hat is at most 1.01, fair if at most 1.05, else poor."""
    rhat = result.rhat[~np.isnan(result.rhat)]
    if not len(rhat):
        return "unknown"
    if result.nonfinite:
        return "poor"
    return "good" if rhat.max() <= STRICT else "fair" if rhat.max() <= LOOSE else "poor"


def are_apart(result: Convergence) -> bool:
    """Whether the chains disagree: a space may be poor for draws that are not finite alone."""
    return bool(np.any(result.rhat > LOOSE))


def _space(result: Convergence, null: Convergence | None) -> Verdict:
    level = convergence_level(result)
    rhat = result.rhat[~np.isnan(result.rhat)]
    if not len(rhat):
        few = "one draw a chain" if result.draws == 1 else f"{result.draws} draws a chain"
        reason = "one chain only" if result.chains < 2 else few
        text = f"R-hat is not defined ({reason}, or all draws constant or not finite)."
    else:
        strict, loose = (percent(float(np.mean(rhat <= limit))) for limit in (STRICT, LOOSE))
        text = (
            f"R-hat median {np.median(rhat):.3f}, maximum {number(float(rhat.max()), fixed=True)}; "
            f"at most {STRICT} for {strict} and at most {LOOSE} for {loose} "
            f"of {len(rhat):,} scalars."
        )
    ess = result.ess_bulk[~np.isnan(result.ess_bulk)]
    if len(ess):
        low = float(np.mean(ess < ENOUGH))
        text += f" Bulk ESS median {number(float(np.median(ess)))}"
        text += (
            f", below {ENOUGH:.0f} for {percent(low)}." if low else f", all {ENOUGH:.0f} or more."
        )
    for names, words in (
        (result.constant, "Scalars that never change"),
        (result.nonfinite, "Scalars with draws that are not finite"),
    ):
        if names:
            some = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
            text += f" {words}, and so have no R-hat: {len(names):,} ({some})."
    control = np.empty(0) if null is None else null.rhat[~np.isnan(null.rhat)]
    if len(control):
        text += (
            f" Control: draws of the prior, put through the same quotient, have median "
            f"{np.median(control):.3f} and maximum {number(float(control.max()), fixed=True)}."
        )
    return Verdict(level, _OF[result.space], text)


def _mixing(found: Diagnosis) -> list[Verdict]:
    """Judge the sampler by what the symmetry group says of any posterior."""
    results = []
    tests = found.exchangeability
    if tests:
        worst = min(tests.values(), key=lambda test: test.p_value)
        p_value = min(1.0, worst.p_value * len(tests))
        if p_value < UNLIKELY:
            text = (
                f"This sampler has not mixed over the order of the units of {worst.space}: which "
                f"unit has the largest weight is not uniform ({_p(p_value)}). A statement about "
                "one unit holds for the orders that were visited; predictions do not depend on it."
            )
        elif p_value < DOUBTFUL:
            text = (
                f"There is weak evidence that the order of the units of {worst.space} has not mixed"
                f" ({_p(p_value)}): more draws would tell."
            )
        else:
            text = (
                f"Each unit has the largest weight about equally often ({_p(p_value)} over "
                f"{', '.join(tests)}): the order of units gives no sign of bad mixing."
            )
        level: Level = "fair" if p_value < DOUBTFUL else "good"
        results.append(Verdict(level, "Order of units", text))
    known = [one for one in found.statements if not math.isnan(one.p_value)]
    for one in known:
        p_value = min(1.0, one.p_value * len(known))
        if p_value < UNLIKELY:
            text = (
                f"This sampler has not mixed along the {_orbit(one.kind)} of {one.where}: an "
                f"average whose exact value is known is {abs(one.worst):.1f} standard errors off "
                f"({_p(p_value)})."
            )
            results.append(Verdict("poor", "Identities", text))
    if known and not any(verdict.subject == "Identities" for verdict in results):
        count = sum(len(one.z) for one in known)
        largest = max(abs(one.worst) for one in known)
        text = (
            f"All {count:,} averages whose exact value the symmetry group gives agree with it; "
            f"the farthest is {largest:.1f} standard errors off."
        )
        results.append(Verdict("good", "Identities", text))
    return results


def _orbit(kind: str) -> str:
    words = {"virial": "scaling orbits", "stein": "scaling orbits", "shift": "output shifts"}
    return next((text for part, text in words.items() if part in kind.lower()), f"{kind} orbits")


def _p(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def _sampler(found: Diagnosis) -> list[Verdict]:
    sampler = found.sampler
    results: list[Verdict] = []
    if sampler.divergences is not None:
        count = int(sampler.divergences.sum())
        total = sampler.chains * sampler.draws
        share = count / max(1, total)
        level: Level = "good" if count == 0 else "fair" if share < 0.01 else "poor"
        text = f"{count:,} of {total:,} transitions diverged."
        if count:
            text += (
                " The step is too long for some region of the posterior, which the draws then miss:"
                " aim for a higher acceptance rate."
            )
        results.append(Verdict(level, "Divergences", text))
    if sampler.bfmi is not None and not np.isnan(sampler.bfmi).all():
        low = int(np.sum(sampler.bfmi < LOW_BFMI))
        text = (
            f"BFMI is {np.nanmin(sampler.bfmi):.2f} or more in all chains (low: below {LOW_BFMI})."
        )
        if low:
            text = f"BFMI is below {LOW_BFMI} in {low} of {len(sampler.bfmi)} chains: heavy tails."
        results.append(Verdict("poor" if low else "good", "Energy", text))
    if sampler.nonfinite:
        text = f"Draws that hold a weight that is NaN or infinite: {sampler.nonfinite:,}."
        results.append(Verdict("poor", "Finite draws", text))
    if found.posterior is not None and found.posterior.left_out:
        text = (
            "Draws that predict NaN or an infinite mean, left out of the averages: "
            f"{found.posterior.left_out:,}."
        )
        results.append(Verdict("poor", "Finite predictions", text))
    if found.posterior is not None and found.posterior.problem:
        text = f"{found.posterior.problem} Scores that need the labels are left out."
        results.append(Verdict("poor", "Labels", text))
    if found.posterior is not None and found.posterior.remark:
        results.append(Verdict("unknown", "Labels", found.posterior.remark))
    if found.ood_problem:
        results.append(Verdict("unknown", "Inputs from elsewhere", found.ood_problem))
    return results


def comparison(found: Diagnosis) -> str:
    """Say whether the posterior mean predicts better than the point estimate; empty if unknown."""
    if found.posterior is None or found.point is None:
        return ""
    ours, theirs = found.posterior.scores(), found.point.scores()
    parts = []
    for key, words, better, worse in (
        ("accuracy", "accuracy", "higher", "lower"),
        ("rmse", "RMSE", "lower", "higher"),
        ("nll", "negative log likelihood", "lower", "higher"),
        ("ece", "calibration error", "lower", "higher"),
    ):
        if key not in ours or key not in theirs:
            continue
        difference = ours[key] - theirs[key]
        if math.isnan(difference):
            continue
        gain = difference if better == "higher" else -difference
        parts.append(
            f"the same {words}"
            if difference == 0
            else f"{better if gain > 0 else worse} {words} ({_change(key, difference)})"
        )
    if not parts:
        return ""
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"Against the point estimate, the posterior mean has {listed}."


def _change(key: str, difference: float) -> str:
    sign = "+" if difference > 0 else "\N{MINUS SIGN}"
    if key == "accuracy":
        return f"{sign}{100 * abs(difference):.1f} points"
    return f"{sign}{abs(difference):.2g}"
