"""How differently the members of a sample predict: every pair, over all inputs.

For each pair of members: the mutual information of label and member (the entropy of the mean of
the two, less the mean of the two entropies), the share of inputs on which they name different
classes, and the mean squared distance of their probabilities. Laurent, Aldea and Franchi (2024),
section 6, ask by the first whether independent seeds collapse to one function.

The mutual information of a pair is a squared distance (Fuglede and Topsøe 2004, Jensen-Shannon
divergence and Hilbert space embedding). For ``x, y >= 0``::

    (x + y) log(x + y) - x log x - y log y
        = integral over t > 0 of (1 - exp(-t x)) (1 - exp(-t y)) / t^2

so the features ``1 - exp(-t p)`` turn all pairs into matrix products, and no pair needs a logarithm
of its own. The integral is a sum over ``t = 2^-10, ..., 2^30``: in ``log t`` it is smooth, and the
trapezoidal rule converges geometrically; with ``t`` doubled, a feature ``u`` becomes ``u (2 - u)``.
The error is below 1e-6 nats for probabilities down to the rounding of float32.

Inputs pass by in blocks of float32, which are tasks for any worker; sums over inputs are float64,
and blocks are added in their order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from pyro_bnn.diagnostics.draws import Draws, usable_draws
from pyro_bnn.tasks import Map

MAX_MEMBERS = 1_000

TASK_INPUTS = 256
"""Inputs of one task: a matter of the trace alone, so that sums are those of every scheduler."""

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Progress = Callable[[int, int], None]

_COLUMNS = 4096  # of one product: 16 MiB of features of 1,000 members
_LEAST, _NODES = np.float32(2.0**-10), 41  # of t


@dataclass(frozen=True)
class Diversity:
    """Distances of all pairs of members, in the order of ``numpy.triu_indices(members, 1)``.

    Attributes
    ----------
    members, inputs
        How many of each.
    mutual_information
        In nats, 0 to ``log 2``, shape ``(pair,)``; None for continuous predictions.
    disagreement
        Share of inputs with another most probable class, shape ``(pair,)``; None for continuous
        predictions.
    distance
        Mean over inputs of the squared distance of the class probabilities (0 to 2), or of the
        predictive means, shape ``(pair,)``.
    same_chain
        Whether both are draws of one chain, shape ``(pair,)``.
    """

    members: int
    inputs: int
    mutual_information: Array | None
    disagreement: Array | None
    distance: Array
    same_chain: NDArray[np.bool_]

    @property
    def distances(self) -> dict[str, Array]:
        """The distances that are known, by name."""
        named = {
            "mutual_information": self.mutual_information,
            "disagreement": self.disagreement,
            "distance": self.distance,
        }
        return {name: values for name, values in named.items() if values is not None}


def correlation(inside: Diversity, outside: Diversity) -> float:
    """Rank correlation over pairs of the distance inside and outside of the test distribution.

    Parameters
    ----------
    inside, outside
        Of the same members: by mutual information, or by `distance` if continuous.

    Returns
    -------
    float
        Spearman's; NaN if the members differ in number, or all pairs are alike.
    """
    first, second = (
        one.distance if one.mutual_information is None else one.mutual_information
        for one in (inside, outside)
    )
    if len(first) != len(second) or min(np.ptp(first), np.ptp(second)) == 0:
        return math.nan
    return float(spearmanr(first, second).statistic)


def diversity(
    trace: xr.DataTree,
    group: str = "predictions",
    max_members: int = MAX_MEMBERS,
    progress: Progress | None = None,
    rows: slice | None = None,
    mapped: Map = map,
) -> Diversity | None:
    """Compare every pair of draws by what they predict, 256 inputs a task.

    Parameters
    ----------
    trace
        A trace; its group `group` holds ``mean`` over ``(chain, draw, test[, class])``.
    group
        ``"predictions"`` or ``"predictions_ood"``.
    max_members
        Of more draws, so many are taken, evenly spaced. Draws with NaN are left out.
    progress
        Called with the inputs done and the inputs in all.
    rows
        Inputs to look at; all by default.
    mapped
        ``mapped(function, tasks)``, as `map`: that of a `pyro_bnn.infer.distributed.Scheduler`
        computes tasks on a cluster, which sees the file of the trace. The result is the same, bit
        for bit.

    Returns
    -------
    Diversity or None
        None if the trace has no such predictions, or fewer than two members. Memory: the
        predictions of a task in float32, and 40 bytes a pair.
    """
    if group not in trace.children or "mean" not in trace[group]:
        return None
    dataset = trace[group].to_dataset()[["mean"]]
    chosen = usable_draws(dataset).spaced(max_members)
    if len(chosen) < 2:
        return None
    mean = (
        dataset["mean"]
        .transpose("chain", "draw", "test", ...)
        .drop_vars(list(dataset["mean"].coords))
    )
    mean = mean if rows is None else mean.isel(test=rows)
    kind = str(dataset.attrs.get("likelihood", "categorical" if mean.ndim == 4 else "continuous"))
    inputs = mean.sizes["test"]
    tasks = (mean.isel(test=slice(at, at + TASK_INPUTS)) for at in range(0, inputs, TASK_INPUTS))
    first, second = np.triu_indices(len(chosen), 1)
    found = _means(mapped(_Pairs(chosen, kind), tasks), progress, inputs)
    return Diversity(
        members=len(chosen),
        inputs=inputs,
        mutual_information=found.get("mutual_information"),
        disagreement=found.get("disagreement"),
        distance=found["distance"],
        same_chain=chosen.chain[first] == chosen.chain[second],
    )


def pairwise(
    blocks: Iterable[Single],
    classes: bool,
    progress: Progress | None = None,
    inputs: int = 0,
    mapped: Map = map,
) -> dict[str, Array]:
    """Compare every pair of members over blocks of inputs.

    Parameters
    ----------
    blocks
        Arrays of shape ``(member, input, class)`` in float32, of the same members each.
    classes
        Whether the last axis holds class probabilities; otherwise only the distance is computed.
    progress
        Called with the inputs done and with `inputs`.
    inputs
        The number of inputs in all, for `progress`.
    mapped
        As for `diversity`; each block is a task.

    Returns
    -------
    dict
        ``distance`` and, for classes, ``mutual_information`` and ``disagreement``, each of shape
        ``(pair,)``.
    """
    return _means(mapped(functools.partial(_sums, classes=classes), blocks), progress, inputs)


@dataclass(frozen=True)
class _Pairs:
    """Compares all pairs on the inputs of a task, which are read here."""

    chosen: Draws
    kind: str

    def __call__(self, mean: xr.DataArray) -> tuple[int, dict[str, Array]]:
        return _sums(_predictions(mean, self.chosen, self.kind), self.kind != "continuous")


def _means(
    parts: Iterable[tuple[int, dict[str, Array]]], progress: Progress | None, inputs: int
) -> dict[str, Array]:
    """Add up what blocks of inputs have found, in their order."""
    sums: dict[str, Array] = {}
    done = 0
    for count, part in parts:
        for name, values in part.items():
            sums[name] = sums[name] + values if name in sums else values
        done += count
        if progress is not None:
            progress(done, inputs)
    scales = {"distance": 1, "mutual_information": 4, "disagreement": 2}
    return {name: np.maximum(sums[name], 0.0) / (scales[name] * done) for name in sums}


def _sums(block: Single, classes: bool) -> tuple[int, dict[str, Array]]:
    """Sum squared distances of all pairs over the inputs of a block."""
    step = max(1, _COLUMNS // max(1, block.shape[2]))
    products: dict[str, Array] = {}
    if not classes:
        # About the members' mean: distances must not drown in the level of the predictions.
        block = (block - block.mean(axis=0, dtype=np.float64)).astype(np.float32)
    # How products are split over threads changes how they are rounded.
    with threadpool_limits(1, user_api="blas"):
        for start in range(0, block.shape[1], step):
            part = block[:, start : start + step]
            for name, found in (_class_products if classes else _products)(part).items():
                products[name] = products[name] + found if name in products else found
    return block.shape[1], {name: _squared_distances(gram) for name, gram in products.items()}


def _squared_distances(gram: Array) -> Array:
    """Squared distance of every pair, ``(pair,)``, from the inner products."""
    first, second = np.triu_indices(len(gram), 1)
    own = np.diagonal(gram)
    return np.asarray(own[first] + own[second] - 2 * gram[first, second])


def _products(part: Single) -> dict[str, Array]:
    """Sum inner products of members over some inputs, ``(member, member)``."""
    flat = part.reshape(len(part), -1)
    return {"distance": (flat @ flat.T).astype(np.float64)}


def _class_products(part: Single) -> dict[str, Array]:
    """Sum those of probabilities, of the features of mutual information, and of one-hot labels."""
    found = _products(part)
    feature = -np.expm1(-_LEAST * part.reshape(len(part), -1))
    scratch = np.empty_like(feature)
    # Below the least t the features are linear, and their terms a geometric series.
    information: Array = math.log(2) * _LEAST * found["distance"]
    for node in range(_NODES):
        weight = math.log(2) / (_LEAST * 2.0**node)
        # Above the largest t they no longer change, and their terms are another one.
        information += (weight if node < _NODES - 1 else 2 * weight) * (feature @ feature.T)
        np.subtract(2, feature, out=scratch)
        feature *= scratch
    named = np.zeros(part.shape, np.float32)
    np.put_along_axis(named, part.argmax(axis=2)[..., None], 1, axis=2)
    flat = named.reshape(len(part), -1)
    labels = (flat @ flat.T).astype(np.float64)
    return {**found, "mutual_information": information, "disagreement": labels}


def _predictions(mean: xr.DataArray, chosen: Draws, kind: str) -> Single:
    """Load what the chosen draws predict, ``(member, input, class)``."""
    picks = {
        "chain": xr.DataArray(chosen.chain, dims="member_"),
        "draw": xr.DataArray(chosen.draw, dims="member_"),
    }
    values = mean.isel(picks).transpose("member_", ...).to_numpy().astype(np.float32)
    if kind == "bernoulli":
        values = np.stack([1 - values, values], axis=-1)
    return values.reshape(*values.shape[:2], -1)
