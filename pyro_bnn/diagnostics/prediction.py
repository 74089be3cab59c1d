"""What the posterior mean predicts on the test split, and what the point estimate predicts.

The posterior predictive is the mean over draws of each draw's predictive distribution. Draws pass
by in blocks; only sums over draws are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics import metrics
from pyro_bnn.diagnostics.blocks import BLOCK_BYTES, draw_slices
from pyro_bnn.diagnostics.draws import all_draws, chosen
from pyro_bnn.diagnostics.selective import selective_curve
from pyro_bnn.diagnostics.temperature import Temperature, temperature_scaling

Array = NDArray[np.float64]

_VARIABLES = ("log_predictive", "mean", "cdf", "sd")
_CRPS_DRAWS = 200
_CRPS_TERMS = 2**28  # pairs of draws, times inputs: some seconds
_CRPS_FEWEST = 20


@dataclass(frozen=True)
class Prediction:
    """Predictive distribution at each test input.

    Attributes
    ----------
    likelihood
        ``"categorical"``, ``"bernoulli"`` or ``"continuous"``.
    y
        Observations, shape ``(test,)``; None if the trace has none.
    log_predictive
        Log density of each observation, shape ``(test,)``.
    mean
        Class probabilities ``(test, class)``, or predictive means ``(test,)`` if continuous; None
        of a law that has no mean.
    pit
        Predictive distribution function at each observation, shape ``(test,)``; continuous only.
    spread
        What the draws disagree on, shape ``(test,)``: for classes the mutual information of label
        and weights in nats, otherwise the standard deviation of the mean. None for one draw.
    noise
        What the draws agree that they do not know, shape ``(test,)``: for classes the mean entropy
        of the draws in nats, otherwise the root mean square of their standard deviations (None
        unless the trace holds ``sd``). None for a point estimate.
    crps
        Continuous ranked probability score of each observation for a normal likelihood, shape
        ``(test,)``, from 200 draws at most (fewer of more than 6,710 inputs, since it costs the
        square of them); None unless the trace holds ``sd``.
    draws
        Draws averaged over.
    left_out
        Draws with a NaN or an infinite mean in them, which the averages leave out.
    """

    likelihood: str
    y: NDArray[Any] | None
    log_predictive: Array | None
    mean: Array | None
    pit: Array | None
    spread: Array | None
    noise: Array | None
    crps: Array | None
    draws: int
    left_out: int

    @property
    def is_classification(self) -> bool:
        """Whether `mean` holds class probabilities."""
        return self.likelihood in {"categorical", "bernoulli"}

    @property
    def problem(self) -> str:
        """Why the labels cannot be judged, in a sentence; empty if they can."""
        if not self.is_classification or self.mean is None or self.y is None:
            return ""
        if np.isnan(self.mean).any():
            return "The predictions hold NaN."
        classes, labels = self.mean.shape[1], np.unique(self.y)
        if len(self.mean) != len(self.y):
            return f"There are {len(self.y):,} labels and {len(self.mean):,} predictions."
        if labels[0] < 0 or labels[-1] >= classes or np.any(labels % 1):
            odd = next(label for label in labels if label % 1 or not 0 <= label < classes)
            return f"A label is {odd:g}, but the predictions have {classes} classes."
        return ""

    @property
    def remark(self) -> str:
        """Which classes the scores say nothing of, in a sentence; empty if all have labels."""
        if not self.is_classification or self.mean is None or self.y is None or self.problem:
            return ""
        classes, seen = self.mean.shape[1], len(np.unique(self.y))
        if seen == classes:
            return ""
        return (
            f"The predictions have {classes} classes, of which the labels hold {seen}: the scores"
            " say nothing of the others."
        )

    @cached_property
    def temperature(self) -> Temperature | None:
        """What temperature scaling gains; None without two labels of classes to judge it by."""
        if not self.is_classification or self.mean is None or self.y is None or self.problem:
            return None
        return temperature_scaling(self.mean, self.y) if len(self.y) > 1 else None

    def scores(self) -> dict[str, float]:
        """Compute the scores that the likelihood and the stored groups allow.

        Returns
        -------
        dict
            ``nll`` and, for classes, ``accuracy``, ``brier``, ``ece``, ``ace``, ``aurc`` (area
            under the selective risk curve) and ``mutual_information``; else ``rmse``, ``crps``,
            ``coverage50``, ``coverage90``, ``pit_distance`` (the largest distance of the PIT's
            distribution function from the uniform one). Labels that do not fit the classes are
            not judged.
        """
        result: dict[str, float] = {}
        if self.mean is not None and self.y is not None and not self.problem:
            if self.is_classification:
                result["accuracy"] = metrics.accuracy(self.mean, self.y)
                result["brier"] = metrics.brier(self.mean, self.y)
                result["ece"] = metrics.expected_calibration_error(self.mean, self.y)
                result["ace"] = metrics.adaptive_calibration_error(self.mean, self.y)
                wrong = (self.mean.argmax(axis=1) != self.y).astype(np.float64)
                result["aurc"] = selective_curve(-self.mean.max(axis=1), wrong).area
            else:
                result["rmse"] = metrics.rmse(self.mean, self.y)
        if self.is_classification and self.spread is not None:
            result["mutual_information"] = float(np.mean(self.spread))
        if self.crps is not None:
            result["crps"] = float(np.mean(self.crps))
        if self.log_predictive is not None:
            result["nll"] = float(-np.mean(self.log_predictive))
        if self.pit is not None:
            result["coverage50"] = metrics.coverage(self.pit, 0.5)
            result["coverage90"] = metrics.coverage(self.pit, 0.9)
            result["pit_distance"] = metrics.uniform_distance(self.pit)
        return result


def posterior_prediction(trace: xr.DataTree, name: str = "predictions") -> Prediction | None:
    """Average the predictive distribution over all draws.

    Parameters
    ----------
    trace
        A trace; its group `name` holds ``log_predictive``, ``mean``, ``cdf`` and ``sd`` over
        ``(chain, draw, test)``, some of which may be missing.
    name
        ``"predictions"``, or the name of a group of the same layout; the observations are those of
        ``predictions_constant_data`` for the first and unknown for others.

    Returns
    -------
    Prediction or None
        None if the trace has no predictions.
    """
    if name not in trace.children:
        return None
    group = trace[name].to_dataset()
    arrays = {variable: group[variable] for variable in _VARIABLES if variable in group}
    if not arrays:
        return None
    likelihood = _likelihood(group)
    classes = likelihood != "continuous"
    heaviest = max(arrays.values(), key=lambda array: array.nbytes)
    sums = _Sums(classes)
    for draws in draw_slices(heaviest):
        sums.add({key: _load(array, draws) for key, array in arrays.items()}, likelihood)
    y = _observations(trace) if name == "predictions" else None
    return Prediction(
        likelihood=likelihood,
        y=y,
        crps=None if classes or y is None else _crps(arrays, y),
        draws=sums.draws,
        left_out=sums.left_out,
        **sums.averages(),
    )


def point_prediction(trace: xr.DataTree) -> Prediction | None:
    """Read the prediction of the point estimate.

    Parameters
    ----------
    trace
        A trace; its group ``point_estimate`` is over ``(test,)``.

    Returns
    -------
    Prediction or None
        None if the trace has no point estimate.
    """
    if "point_estimate" not in trace.children:
        return None
    return averaged_prediction(trace, trace["point_estimate"].to_dataset())


def averaged_prediction(trace: xr.DataTree, group: xr.Dataset) -> Prediction:
    """Read a predictive distribution that needs no average over draws any more.

    Parameters
    ----------
    trace
        The trace, for the observations and, where `group` does not state it, the likelihood.
    group
        ``log_predictive``, ``mean``, ``cdf`` and ``sd`` over ``(test,)``, some of which may be
        missing.

    Returns
    -------
    Prediction
        Without `spread` and `noise`.
    """
    predictions = trace["predictions"].to_dataset() if "predictions" in trace.children else group
    likelihood = _likelihood(group if "likelihood" in group.attrs else predictions)
    found = {
        name: np.asarray(group[name].to_numpy(), dtype=np.float64)
        for name in _VARIABLES
        if name in group
    }
    mean = found.get("mean")
    y = _observations(trace)
    return Prediction(
        likelihood=likelihood,
        y=y,
        log_predictive=found.get("log_predictive"),
        mean=None if mean is None else _probabilities(mean, likelihood),
        pit=found.get("cdf"),
        spread=None,
        noise=None,
        crps=_point_crps(found, y),
        draws=1,
        left_out=0,
    )


def other_labels(first: xr.DataTree, second: xr.DataTree) -> bool:
    """Whether two traces are known to have been judged on different test splits."""
    ours, theirs = _observations(first), _observations(second)
    return ours is not None and theirs is not None and not np.array_equal(ours, theirs)


class _Sums:
    """Running sums over draws."""

    def __init__(self, classes: bool) -> None:
        self.classes = classes
        self.draws = 0
        self.left_out = 0
        self.has_mean = True
        self.log_predictive: Array | None = None
        self.mean: Array | None = None
        self.entropy: Array | None = None
        self.squares: Array | None = None
        self.pit: Array | None = None
        self.variance: Array | None = None
        self._shift: Array | None = None

    def add(self, block: dict[str, Array], likelihood: str) -> None:
        """Add draws; each array has the shape ``(sample, test[, class])``."""
        self.has_mean = self.has_mean and (self.classes or not _lack_mean(block))
        if not self.has_mean:
            block = {name: values for name, values in block.items() if name != "mean"}
        broken = np.zeros(len(next(iter(block.values()))), dtype=bool)
        for name, values in block.items():
            # One infinite mean would be that of all draws; an infinite loss is a loss.
            bad = ~np.isfinite(values) if name == "mean" else np.isnan(values)
            broken |= bad.reshape(len(values), -1).any(axis=1)
        self.left_out += int(broken.sum())
        self.draws += int((~broken).sum())
        if broken.any():
            block = {name: values[~broken] for name, values in block.items()}
        if broken.all():
            return
        if "log_predictive" in block:
            new = np.logaddexp.reduce(block["log_predictive"], axis=0)
            old = self.log_predictive
            self.log_predictive = new if old is None else np.logaddexp(old, new)
        if "cdf" in block:
            self.pit = _plus(self.pit, block["cdf"].sum(axis=0))
        if "sd" in block:
            self.variance = _plus(self.variance, (block["sd"] ** 2).sum(axis=0))
        if "mean" not in block:
            return
        mean = _probabilities(block["mean"], likelihood)
        if self.classes:
            self.entropy = _plus(self.entropy, metrics.entropy(mean).sum(axis=0))
            self.mean = _plus(self.mean, mean.sum(axis=0))
        else:
            # The variance is about the first block's mean: it must not drown in a large mean.
            if self._shift is None:
                self._shift = mean.mean(axis=0)
            self.mean = _plus(self.mean, (mean - self._shift).sum(axis=0))
            self.squares = _plus(self.squares, ((mean - self._shift) ** 2).sum(axis=0))

    def averages(self) -> dict[str, Array | None]:
        """Divide the sums by the number of draws."""
        n = max(1, self.draws)
        mean = None if self.mean is None or not self.has_mean else self.mean / n
        spread = None
        if mean is not None and self.entropy is not None:
            spread = np.maximum(metrics.entropy(mean) - self.entropy / n, 0.0)
        elif mean is not None and self.squares is not None and self._shift is not None:
            spread = np.sqrt(np.maximum(self.squares / n - mean**2, 0.0))
            mean = mean + self._shift
        noise = None
        if self.entropy is not None:
            noise = self.entropy / n
        elif self.variance is not None:
            noise = np.sqrt(self.variance / n)
        return {
            "noise": noise,
            "log_predictive": None
            if self.log_predictive is None
            else self.log_predictive - np.log(n),
            "mean": mean,
            "pit": None if self.pit is None else self.pit / n,
            "spread": spread,
        }


def _crps(arrays: Mapping[str, xr.DataArray], y: NDArray[Any]) -> Array | None:
    if "mean" not in arrays or "sd" not in arrays or y.ndim > 1:
        return None
    chains, draws = (arrays["mean"].sizes[dim] for dim in ("chain", "draw"))
    if not arrays["mean"].size:
        return None
    affordable = max(_CRPS_FEWEST, math.isqrt(_CRPS_TERMS // len(y)))
    picks = all_draws(chains, draws).spaced(min(_CRPS_DRAWS, affordable))
    mean, sd = (
        np.concatenate([*chosen(arrays[key], picks, BLOCK_BYTES)], axis=1).astype(np.float64)
        for key in ("mean", "sd")
    )
    fine = np.isfinite(mean).all(axis=1) & np.isfinite(sd).all(axis=1) & (sd > 0).all(axis=1)
    return metrics.crps_of_normals(mean[fine], sd[fine], y) if fine.any() else None


def _point_crps(found: Mapping[str, Array], y: NDArray[Any] | None) -> Array | None:
    if y is None or y.ndim > 1 or "mean" not in found or "sd" not in found:
        return None
    return metrics.crps_of_normals(found["mean"][None], found["sd"][None], y)


def _lack_mean(block: Mapping[str, Array]) -> bool:
    """Whether draws have a density but no mean at any input, such as those of a Cauchy law."""
    if not {"mean", "log_predictive"} <= set(block):
        return False
    nowhere = np.isnan(block["mean"]).reshape(len(block["mean"]), -1).all(axis=1)
    return bool(np.any(nowhere & ~np.isnan(block["log_predictive"]).any(axis=1)))


def _plus(old: Array | None, new: Array) -> Array:
    return new if old is None else old + new


def _load(array: xr.DataArray, draws: slice) -> Array:
    values = array.transpose("chain", "draw", ...).isel(draw=draws).to_numpy()
    return values.reshape(-1, *values.shape[2:]).astype(np.float64)


def _likelihood(group: xr.Dataset) -> str:
    stated = group.attrs.get("likelihood")
    if stated is not None:
        return str(stated)
    if "mean" in group and "class" in group["mean"].dims:
        return "categorical"
    return "continuous"


def _probabilities(mean: Array, likelihood: str) -> Array:
    return np.stack([1.0 - mean, mean], axis=-1) if likelihood == "bernoulli" else mean


def _observations(trace: xr.DataTree) -> NDArray[Any] | None:
    if "predictions_constant_data" not in trace.children:
        return None
    group = trace["predictions_constant_data"]
    return group["y"].to_numpy() if "y" in group else None
