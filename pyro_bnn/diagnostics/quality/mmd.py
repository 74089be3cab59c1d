"""Maximum mean discrepancy between two samples, over the kernels of MMDAgg.

The kernels are those of Schrab, Kim, Albert, Laurent, Guedj and Gretton (2023), MMD aggregated
two-sample test: Laplace ``exp(-|x - y|_1 / h)`` and Gaussian ``exp(-|x - y|_2^2 / h^2)``, each over
a geometric grid of bandwidths. The estimate of Gretton et al. (2012), equation 3, is unbiased:
it is negative about half of the time where the two distributions are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_bnn.diagnostics.quality.distances import Distances
from pyro_bnn.halving import Halving

BANDWIDTHS = 10
PERMUTATIONS = 400
RESAMPLES = 200
LEVEL = 0.95
FEWEST = 8
"""Draws of each sample from which an interval is stated: that of two has no width at all."""

_FLOOR = 0.1
_BLOCK_BYTES = 2**25


@dataclass(frozen=True)
class Mmd:
    """Squared MMD of two samples.

    Attributes
    ----------
    kernels
        ``("laplace", h)`` or ``("gaussian", h)`` for each kernel.
    values
        Unbiased estimate for each kernel, in the order of `kernels`.
    value
        Their average, the number to quote.
    interval
        Bootstrap interval of `value` of probability 0.95; both ends NaN without resamples, and
        where a sample has fewer than `FEWEST` draws. Near zero, where the estimate is degenerate,
        it is wider than it need be.
    p_value
        Of the hypothesis that both samples come from one distribution; NaN without permutations.
        The draws of each sample must be independent of each other.
    n, m
        Sizes of the samples.
    """

    kernels: tuple[tuple[str, float], ...]
    values: tuple[float, ...]
    value: float
    interval: tuple[float, float]
    p_value: float
    n: int
    m: int


def mmd(
    distances: Distances,
    permutations: int = PERMUTATIONS,
    resamples: int = RESAMPLES,
    generator: torch.Generator | None = None,
) -> Mmd:
    """Estimate the squared MMD, its interval and its p-value.

    The p-value is that of the largest standardised estimate over all kernels, whose distribution
    under the hypothesis comes from permutations of the pooled draws, so its level is exact for
    any number of kernels. The bandwidths depend on the pooled draws only. The bootstrap leaves
    pairs of a draw with its own copy out, which would bias it upwards.

    Parameters
    ----------
    distances
        Of two samples of at least two draws each.
    permutations, resamples
        How many; 0 for none.
    generator
        On the device of the distances.

    Returns
    -------
    Mmd
        Costs memory for one block of kernel values, beside the distances.

    Raises
    ------
    ValueError
        If a sample has fewer than two draws.

    Examples
    --------
    >>> from pyro_bnn.diagnostics.quality import Distances
    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> found = mmd(Distances.of(x, x + 1), generator=torch.Generator().manual_seed(1))
    >>> found.value > 0, found.p_value < 0.01, len(found.values)
    (True, True, 20)
    """
    n, total = distances.n, len(distances.l1)
    m = total - n
    if min(n, m) < 2:
        raise ValueError(f"MMD needs two draws of each sample, not {n} and {m}")
    device = distances.l1.device
    members = torch.zeros(1 + permutations, total, dtype=torch.float64, device=device)
    members[0, :n] = 1
    for row in range(1, 1 + permutations):
        order = torch.randperm(total, generator=generator, device=device)
        members[row, order[:n]] = 1
    if min(n, m) < FEWEST:
        resamples = 0
    weights = _bootstrap_weights(n, m, resamples, generator, device)
    halving = Halving(max(1, _BLOCK_BYTES // (8 * total)), "MMD", "draws")
    kernels: list[tuple[str, float]] = []
    estimates, bootstraps = [], []
    for kind, pairs in (("laplace", distances.l1), ("gaussian", distances.squared)):
        grid = bandwidth_grid(pairs if kind == "laplace" else pairs.sqrt())
        for h in grid.tolist():
            kernels.append((kind, h))
            scale = h if kind == "laplace" else h**2
            estimates.append(_permuted(pairs, scale, members, n, halving))
            bootstraps.append(_resampled(pairs, scale, weights, n, halving))
    values = torch.stack(estimates)
    return Mmd(
        kernels=tuple(kernels),
        values=tuple(values[:, 0].tolist()),
        value=float(values[:, 0].mean()),
        interval=_interval(torch.stack(bootstraps).mean(0)),
        p_value=_p_value(values) if permutations else float("nan"),
        n=n,
        m=m,
    )


def bandwidth_grid(pairs: Tensor, count: int = BANDWIDTHS) -> Tensor:
    """Lay a geometric grid of bandwidths over the distances between draws.

    From half the smallest distance to twice the largest. Where the smallest is below a tenth of
    the median (repeated draws), the 5 % quantile takes its place, or that tenth if it is larger.
    MMDAgg's released code has the absolute floors 0.1 and 0.3 instead; relative ones make the
    statistic independent of the unit of the weights.

    Parameters
    ----------
    pairs
        Distances of shape ``(draw, draw)``.
    count
        Number of bandwidths.

    Returns
    -------
    Tensor
        Shape ``(count,)``, ascending; all ones if all draws are equal.
    """
    upper = pairs[tuple(torch.triu_indices(len(pairs), len(pairs), 1, device=pairs.device))]
    upper = upper.sort().values
    largest = float(upper[-1])
    if largest == 0:
        return torch.ones(count, dtype=pairs.dtype, device=pairs.device)
    floor = _FLOOR * (float(upper[len(upper) // 2]) or largest)
    smallest = float(upper[0])
    if smallest < floor:
        smallest = max(float(upper[len(upper) // 20]), floor)
    exponents = torch.linspace(0, 1, count, dtype=pairs.dtype, device=pairs.device)
    return smallest / 2 * (4 * largest / smallest) ** exponents


def _of_kernel_rows(
    pairs: Tensor,
    scale: float,
    halving: Halving,
    work: Callable[[slice, Tensor], tuple[Tensor, Tensor, Tensor]],
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum three terms over blocks of rows of a kernel matrix, its diagonal zero."""

    def of_rows(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        block = torch.exp(pairs[rows] / -scale)
        block[:, rows].fill_diagonal_(0)
        return work(rows, block)

    found = zip(*halving.run(of_rows, len(pairs)), strict=True)
    first, second, third = (torch.stack(terms).sum(0) for terms in found)
    return first, second, third


def _permuted(pairs: Tensor, scale: float, members: Tensor, n: int, halving: Halving) -> Tensor:
    """Return the estimate for each way of dealing out the draws, ``(deal,)``."""
    m = len(pairs) - n

    def terms(rows: slice, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sums = block.sum(1)
        inside = ((members @ block.T) * members[:, rows]).sum(1)
        return inside, members[:, rows] @ sums, sums.sum()

    inside, first, total = _of_kernel_rows(pairs, scale, halving, terms)
    between = first - inside
    others = total - first - between
    return inside / (n * (n - 1)) + others / (m * (m - 1)) - 2 * between / (n * m)


def _resampled(
    pairs: Tensor, scale: float, weights: tuple[Tensor, Tensor], n: int, halving: Halving
) -> Tensor:
    """Return the estimate for each bootstrap sample, pairs of copies left out, ``(resample,)``."""
    both = torch.cat(weights, 1)
    x, y = torch.zeros_like(both), torch.zeros_like(both)
    x[:, :n], y[:, n:] = weights

    def terms(rows: slice, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_x, of_y = x @ block.T, y @ block.T
        within = (of_x * x[:, rows]).sum(1), (of_y * y[:, rows]).sum(1)
        return *within, (of_x * y[:, rows]).sum(1)

    xx, yy, xy = _of_kernel_rows(pairs, scale, halving, terms)
    pairs_x, pairs_y = (w.sum(1).square() - w.square().sum(1) for w in (x, y))
    return xx / pairs_x + yy / pairs_y - 2 * xy / (x.sum(1) * y.sum(1))


def _bootstrap_weights(
    n: int, m: int, resamples: int, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    results = []
    for size in (n, m):
        weights = torch.zeros(resamples, size, dtype=torch.float64, device=device)
        picks = torch.randint(size, (resamples, size), generator=generator, device=device)
        weights.scatter_add_(1, picks, torch.ones_like(weights))
        # All picks alike leave no pair to average over.
        weights[(weights > 0).sum(1) < 2] = 1.0
        results.append(weights)
    return results[0], results[1]


def _interval(values: Tensor) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    ends = values.new_tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = torch.quantile(values, ends).tolist()
    return low, high


def _p_value(values: Tensor) -> float:
    """Return the share of deals, the observed one included, at least as extreme as it."""
    spread = values.std(1, keepdim=True, correction=0)
    known = spread[:, 0] > 1e-12 * values.abs().amax(1).clamp_min(1e-300)
    if not bool(known.any()):
        return 1.0
    standardised = (values[known] - values[known].mean(1, keepdim=True)) / spread[known]
    largest = standardised.amax(0)
    # Deals that differ in rounding only count as equal.
    return float((largest >= largest[0] - 1e-9).double().mean())
