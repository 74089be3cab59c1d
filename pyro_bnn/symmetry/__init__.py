"""Weight-space symmetries: found in the computation, acted with, divided out."""

from __future__ import annotations

from pyro_bnn.symmetry.align import align, barycentre
from pyro_bnn.symmetry.discovery import discover
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import Space, SymmetryGroup
from pyro_bnn.symmetry.null import null_control
from pyro_bnn.symmetry.quotient import Canonical, Quotient

__all__ = [
    "Canonical",
    "GroupElement",
    "Quotient",
    "Space",
    "SymmetryGroup",
    "align",
    "barycentre",
    "discover",
    "null_control",
]
