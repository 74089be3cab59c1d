"""Agreement and total variation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cityblock
from sklearn.metrics import accuracy_score

from pyro_bnn.diagnostics.quality import agreement, total_variation

RNG = np.random.default_rng(0)
P, Q = RNG.dirichlet(np.ones(5), size=(2, 200))


def test_agreement_is_the_accuracy_against_the_reference() -> None:
    assert agreement(P, Q) == accuracy_score(Q.argmax(1), P.argmax(1))


def test_total_variation_is_half_the_city_block_distance() -> None:
    expected = np.mean([cityblock(p, q) / 2 for p, q in zip(P, Q, strict=True)])
    assert total_variation(P, Q) == pytest.approx(expected, rel=1e-12)
    assert total_variation(P, P) == 0
    assert total_variation(np.eye(3), np.eye(3)[[1, 2, 0]]) == 1
