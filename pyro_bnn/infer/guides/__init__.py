"""Guides: approximate posteriors, each in its single- and its multi-mode form."""

from __future__ import annotations

from pyro_bnn.infer.guides.dropout import Dropout
from pyro_bnn.infer.guides.ensemble import Ensemble
from pyro_bnn.infer.guides.failure import Failure
from pyro_bnn.infer.guides.full_rank import FullRank
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.infer.guides.laplace import Laplace
from pyro_bnn.infer.guides.low_rank import LowRank
from pyro_bnn.infer.guides.mean_field import MeanField
from pyro_bnn.infer.guides.point_estimate import PointEstimate
from pyro_bnn.infer.guides.snapshots import Snapshots
from pyro_bnn.infer.guides.swag import SWAG
from pyro_bnn.infer.guides.training import Training

__all__ = [
    "SWAG",
    "Dropout",
    "Ensemble",
    "Failure",
    "FullRank",
    "Guide",
    "Laplace",
    "LowRank",
    "MeanField",
    "PointEstimate",
    "Snapshots",
    "Training",
]
