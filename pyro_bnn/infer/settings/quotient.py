"""Table ``[quotient]`` of a recipe: the canonical form of the draws."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.settings.base import Table

__all__ = ["QuotientSettings"]


class QuotientSettings(Table):
    """Which representative of its orbit stands for a draw."""

    enabled: bool = Field(True, description="Discover the symmetries and divide them out.")
    scaling: Literal["min-mass", "unit-norm", "none"] = Field(
        "min-mass", description="Representative of the scales: min-mass, unit-norm or none."
    )
    sign: bool = Field(True, description="Settle the signs of units that flip.")
    permutation: Literal[
        "sort", "align", "activation-matching", "nearest-neighbour", "weight-matching", "none"
    ] = Field(
        "sort",
        description="Order of the units: sort, align, activation-matching, nearest-neighbour, "
        "weight-matching (not a canonical map) or none.",
    )
    rule: Literal["first", "max", "mean", "norm"] = Field(
        "first", description="What units are sorted by: their first, largest or mean weight, norm."
    )
    reference: Literal["barycentre", "first", "previous"] = Field(
        "barycentre",
        description="What units are matched to: the barycentre of the first draws, the first "
        "draw, or the draw before in the same chain.",
    )
