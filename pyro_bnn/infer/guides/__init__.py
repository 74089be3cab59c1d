"""Guides: approximate posteriors, each in its single- and its multi-mode form."""

from __future__ import annotations

from pyro_bnn.infer.guides.ensemble import Ensemble
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.infer.guides.point_estimate import PointEstimate
from pyro_bnn.infer.guides.training import Training

__all__ = ["Ensemble", "Guide", "PointEstimate", "Training"]
