"""How differently the members of a sample predict: every pair, over all inputs.

For each pair of members: the mutual information of label and member (the entropy of the mean of
the two, less the mean of the two entropies), the share of inputs on which they name different
classes, and the mean squared distance of their probabilities. Laurent, Aldea and Franchi (2024),
section 6, ask by the first whether independent seeds collapse to one function.

With ``s = p + q`` the mutual information of a pair is ``log 2 + (sum p log p + sum q log q - sum s
log s) / 2``, so one logarithm a pair, input and class is all that cannot be shared between pairs.
Inputs pass by in blocks of float32; sums over inputs are float64.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pyro_bnn.diagnostics.draws import Draws, usable_draws

MAX_MEMBERS = 1_000

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Progress = Callable[[int, int], None]

_BLOCK_BYTES = 2**27
_ROWS, _COLUMNS = 16, 4096  # of one step: 256 KiB of sums and as many of logarithms
_TINY = np.float32(1e-30)  # its s log s is nothing, and its logarithm is finite


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
    threads: int | None = None,
    progress: Progress | None = None,
    rows: slice | None = None,
) -> Diversity | None:
    """Compare every pair of draws by what they predict.

    Parameters
    ----------
    trace
        A trace; its group `group` holds ``mean`` over ``(chain, draw, test[, class])``.
    group
        ``"predictions"`` or ``"predictions_ood"``.
    max_members
        Of more draws, so many are taken, evenly spaced. Draws with NaN are left out.
    threads
        Threads to compute with; all cores by default.
    progress
        Called with the inputs done and the inputs in all.
    rows
        Inputs to look at; all by default.

    Returns
    -------
    Diversity or None
        None if the trace has no such predictions, or fewer than two members. Memory: one block of
        128 MiB of predictions in float32, and 16 bytes a pair and distance.
    """
    if group not in trace.children or "mean" not in trace[group]:
        return None
    dataset = trace[group].to_dataset()[["mean"]]
    chosen = usable_draws(dataset).spaced(max_members)
    if len(chosen) < 2:
        return None
    mean = dataset["mean"].transpose("chain", "draw", "test", ...)
    mean = mean if rows is None else mean.isel(test=rows)
    kind = str(dataset.attrs.get("likelihood", "categorical" if mean.ndim == 4 else "continuous"))
    inputs = mean.sizes["test"]
    first, second = np.triu_indices(len(chosen), 1)
    found = pairwise(
        prediction_blocks(mean, chosen, kind), kind != "continuous", threads, progress, inputs
    )
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
    threads: int | None = None,
    progress: Progress | None = None,
    inputs: int = 0,
) -> dict[str, Array]:
    """Compare every pair of members over blocks of inputs.

    Parameters
    ----------
    blocks
        Arrays of shape ``(member, input, class)`` in float32, of the same members each.
    classes
        Whether the last axis holds class probabilities; otherwise only the distance is computed.
    threads
        Threads; all cores by default.
    progress
        Called with the inputs done and with `inputs`.
    inputs
        The number of inputs in all, for `progress`.

    Returns
    -------
    dict
        ``distance`` and, for classes, ``mutual_information`` and ``disagreement``, each of shape
        ``(pair,)``.
    """
    sums: dict[str, Array] = {}
    own = np.zeros(0)
    done = 0
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for block in blocks:
            members = len(block)
            if not sums:
                names = ("joint", "differ", "gram") if classes else ("gram",)
                sums = {name: np.zeros((members, members)) for name in names}
                own = np.zeros(members)
            flat = np.ascontiguousarray(block.reshape(members, -1))
            _add_gram(sums["gram"], flat)
            if classes:
                labels = block.argmax(axis=2)
                flat = flat + _TINY
                own += _entropy_sums(flat)
                list(
                    pool.map(
                        _add_row(sums["joint"], sums["differ"], flat, labels), range(members - 1)
                    )
                )
            done += block.shape[1]
            if progress is not None:
                progress(done, inputs)
    pairs = np.triu_indices(len(own), 1)
    norms = np.diagonal(sums["gram"])
    squared = (norms[:, None] + norms[None] - 2 * sums["gram"])[pairs] / done
    result = {"distance": np.maximum(squared, 0.0)}
    if classes:
        shared = (own[:, None] + own[None])[pairs] - sums["joint"][pairs]
        result["mutual_information"] = np.maximum(math.log(2) + shared / (2 * done), 0.0)
        result["disagreement"] = sums["differ"][pairs] / done
    return result


def _add_gram(gram: Array, flat: Single) -> None:
    step = _COLUMNS * 4
    for start in range(0, flat.shape[1], step):
        part = flat[:, start : start + step]
        gram += part @ part.T


def _entropy_sums(flat: Single) -> Array:
    """Sum p log p of each member, ``(member,)``."""
    total = np.zeros(len(flat))
    for start in range(0, flat.shape[1], _COLUMNS):
        part = flat[:, start : start + _COLUMNS]
        total += np.vecdot(part, np.log(part))
    return total


def _add_row(
    joint: Array, differ: Array, flat: Single, labels: NDArray[np.intp]
) -> Callable[[int], None]:
    """Return what compares one member with all after it; members can go in parallel."""
    narrow = labels.astype(np.int16 if labels.max(initial=0) < 2**15 else np.int32)

    def one(i: int) -> None:
        sums, logs = np.empty((2, _ROWS, _COLUMNS), np.float32)
        for start in range(0, flat.shape[1], _COLUMNS):
            stop = min(start + _COLUMNS, flat.shape[1])
            for row in range(i + 1, len(flat), _ROWS):
                others = flat[row : row + _ROWS, start:stop]
                s, log = sums[: len(others), : stop - start], logs[: len(others), : stop - start]
                np.add(others, flat[i, start:stop], out=s)
                np.log(s, out=log)
                joint[i, row : row + _ROWS] += np.vecdot(s, log)
        differ[i, i + 1 :] += (narrow[i + 1 :] != narrow[i]).sum(axis=1)

    return one


def prediction_blocks(mean: xr.DataArray, chosen: Draws, kind: str) -> Iterator[Single]:
    """Load the chosen draws, a block of inputs at a time."""
    picks = {
        "chain": xr.DataArray(chosen.chain, dims="member_"),
        "draw": xr.DataArray(chosen.draw, dims="member_"),
    }
    width = math.prod(mean.shape[3:]) * (2 if kind == "bernoulli" else 1)
    step = max(1, _BLOCK_BYTES // (4 * len(chosen) * max(1, width)))
    for start in range(0, mean.sizes["test"], step):
        part = mean.isel(test=slice(start, start + step)).isel(picks).transpose("member_", ...)
        values = part.to_numpy().astype(np.float32)
        if kind == "bernoulli":
            values = np.stack([1 - values, values], axis=-1)
        yield values.reshape(*values.shape[:2], -1)
