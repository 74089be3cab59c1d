"""One rule per operator; importing this package fills the registry."""

from __future__ import annotations

from pyro_bnn.symmetry.rules import (
    attention,
    contraction,
    movement,
    normalisation,
    pointwise,
    recurrent,
    reduction,
    window,
)
from pyro_bnn.symmetry.rules.registry import RULES, Call

__all__ = [
    "RULES",
    "Call",
    "attention",
    "contraction",
    "movement",
    "normalisation",
    "pointwise",
    "recurrent",
    "reduction",
    "window",
]
