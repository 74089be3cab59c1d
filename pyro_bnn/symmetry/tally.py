"""What dividing out a symmetry did to all draws of a trace, summed up block by block."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.quotient import Canonical


class Tally:
    """Counts over the blocks of a trace.

    Parameters
    ----------
    group : SymmetryGroup
    """

    def __init__(self, group: SymmetryGroup) -> None:
        self._group = group
        self._orders: dict[str, set[int]] = {name: set() for name in group.permutable}
        self._jointly: set[int] = set()
        self._margins: list[np.ndarray] = []
        self._draws = self._not_finite = self._degenerate = 0
        self._imbalance = 0.0
        self._mass = [0.0, 0.0]

    def add(self, result: Canonical, before: Tensor, after: Tensor) -> None:
        """Count a block of draws.

        Parameters
        ----------
        result : Canonical
        before, after : Tensor
            ``(batch,)``, the mass of each draw.
        """
        good = ~result.nan
        self._draws += len(good)
        self._not_finite += int(result.nan.sum())
        if not bool(good.any()):
            return
        self._degenerate += int(result.degenerate[good].sum())
        self._imbalance = max(self._imbalance, float(result.residual[good].max()))
        self._margins.append(result.margin[good].double().cpu().numpy())
        self._mass[0] += float(before[good].sum())
        self._mass[1] += float(after[good].sum())
        joint = [b""] * int(good.sum())
        for name, permutation in result.element.permutations.items():
            rows = permutation.expand(len(good), *permutation.shape[1:])[good]
            table = rows.flatten(1).cpu().numpy().astype(np.int32)
            keys = [row.tobytes() for row in table]
            self._orders[name] |= {hash(key) for key in keys}
            joint = [a + b for a, b in zip(joint, keys, strict=True)]
        self._jointly |= {hash(key) for key in joint}

    def attributes(self) -> dict[str, object]:
        """Return the sums as attributes of the group ``symmetry``.

        Returns
        -------
        dict
            ``draws``, ``not_finite_draws``, ``degenerate_units`` (counts over all draws),
            ``largest_imbalance``, ``mass_before`` and ``mass_after`` (means over finite draws),
            ``margin_least`` and ``margin_median``, ``distinct_permutations`` (of each space,
            and of all together under ``all``).
        """
        finite = self._draws - self._not_finite
        margins = np.concatenate(self._margins) if self._margins else np.array([math.inf])
        distinct = {name: max(len(found), 1) for name, found in self._orders.items()}
        return {
            "draws": self._draws,
            "not_finite_draws": self._not_finite,
            "degenerate_units": self._degenerate,
            "largest_imbalance": self._imbalance,
            "mass_before": self._mass[0] / max(finite, 1),
            "mass_after": self._mass[1] / max(finite, 1),
            "margin_least": float(margins.min()),
            "margin_median": float(np.median(margins)),
            "distinct_permutations": {**distinct, "all": max(len(self._jointly), 1)},
        }
