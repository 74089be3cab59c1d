"""A symmetry group as JSON, as it is stored with a trace."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pyro_bnn.symmetry.completeness import Completeness
from pyro_bnn.symmetry.frames import Frame
from pyro_bnn.symmetry.group import Factor, Family, Space, SymmetryGroup, Term
from pyro_bnn.symmetry.shear import Shear
from pyro_bnn.symmetry.translation import Translation


def dumps(group: SymmetryGroup) -> str:
    """Write a group."""
    fields = asdict(replace(group, network=()))
    del fields["network"]
    return json.dumps(fields, separators=(",", ":"))


def loads(text: str) -> SymmetryGroup:
    """Read a group that `dumps` wrote; what older files lack is left at its default."""
    raw = json.loads(text)
    spaces = {}
    for name, space in raw["spaces"].items():
        sites = [(site, axis) for site, axis in space["sites"]]
        spaces[name] = Space(**{**space, "sites": sites})
    layout = {site: tuple(_factors(axis) for axis in axes) for site, axes in raw["layout"].items()}
    measured = raw.get("measured")
    return SymmetryGroup(
        shapes={site: tuple(shape) for site, shape in raw["shapes"].items()},
        layout=layout,
        dims={site: tuple(dims) for site, dims in raw["dims"].items()},
        spaces=spaces,
        families={n: Family(**{**f, "terms": _terms(f)}) for n, f in raw["families"].items()},
        unruled=raw["unruled"],
        rejected=raw["rejected"],
        unused=tuple(raw["unused"]),
        statistics=tuple(raw["statistics"]),
        offsets=raw["offsets"],
        certificate=raw["certificate"],
        preserves_prior=raw["preserves_prior"],
        translations={n: Translation(**_in_blocks(t)) for n, t in raw["translations"].items()},
        shears=tuple(Shear(**_in_blocks(shear)) for shear in raw["shears"]),
        frames={n: Frame(**{**f, "terms": _terms(f)}) for n, f in raw["frames"].items()},
        crossed=tuple((site, axis) for site, axis in raw.get("crossed", [])),
        singular=tuple(raw.get("singular", ())),
        measured=Completeness(**measured) if measured else None,
    )


def _terms(raw: Mapping[str, Any]) -> tuple[Term, ...]:
    return tuple(Term(**_in_blocks(term)) for term in raw["terms"])


def _in_blocks(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {**raw, "block": tuple(raw["block"])}


def _factors(axis: Sequence[Mapping[str, Any]]) -> tuple[Factor, ...]:
    return tuple(
        Factor(f["size"], f["space"], tuple(_factors(part) for part in f["parts"]), f["woven"])
        for f in axis
    )
