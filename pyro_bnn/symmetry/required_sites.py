"""Whether draws have the sites of a network."""

from __future__ import annotations

from collections.abc import Mapping

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry.group import SymmetryGroup

__all__ = ["require_sites"]


def require_sites(group: SymmetryGroup, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that draws have the sites of the network, in their shapes.

    Parameters
    ----------
    group : SymmetryGroup
    shapes : dict of str to tuple of int
        Shape of each site of the draws, without chain and draw axes.

    Raises
    ------
    UserError
        If a site is missing or has another shape.
    """
    missing = [site for site in group.shapes if site not in shapes]
    if missing and set(missing) <= set(group.statistics):
        raise UserError(
            f"the draws lack {_listed(missing)}, running statistics of batch norm, without which "
            "the network is not known: save state_dict() and not parameters() alone, or compute "
            "them anew by a pass over the training data in training mode"
        )
    if missing:
        raise UserError(
            f"the draws lack {_listed(missing)}, which the network has: "
            "was the trace made from another model?"
        )
    for site, shape in group.shapes.items():
        if tuple(shapes[site]) != shape:
            raise UserError(
                f"site {site!r} has shape {tuple(shapes[site])} in the draws and {shape} in the "
                "network: was the trace made from another model?"
            )


def _listed(sites: list[str]) -> str:
    more = f" and {len(sites) - 3} more" if len(sites) > 3 else ""
    return ", ".join(repr(site) for site in sites[:3]) + more
