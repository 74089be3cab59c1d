"""Weight-space symmetries: found in the computation, acted with, divided out."""

from __future__ import annotations

from pyro_bnn.symmetry.activation_matching import Activations, activations
from pyro_bnn.symmetry.align import align, barycentre
from pyro_bnn.symmetry.completeness import Completeness, completeness
from pyro_bnn.symmetry.discovery import discover
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import Space, SymmetryGroup
from pyro_bnn.symmetry.identities import Identity, identities
from pyro_bnn.symmetry.identities_of_trace import output_shift, virial, write_identities
from pyro_bnn.symmetry.null import null_control
from pyro_bnn.symmetry.orbit_gibbs import OrbitGibbs
from pyro_bnn.symmetry.orbit_move import OrbitMove
from pyro_bnn.symmetry.quotient import Canonical, Quotient

__all__ = [
    "Activations",
    "Canonical",
    "Completeness",
    "GroupElement",
    "Identity",
    "OrbitGibbs",
    "OrbitMove",
    "Quotient",
    "Space",
    "SymmetryGroup",
    "activations",
    "align",
    "barycentre",
    "completeness",
    "discover",
    "identities",
    "null_control",
    "output_shift",
    "virial",
    "write_identities",
]
