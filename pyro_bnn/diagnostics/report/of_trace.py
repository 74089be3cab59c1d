"""The pictures of a page that need the trace alone: they can be drawn before it is diagnosed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import NamedTuple

import xarray as xr

from pyro_bnn.diagnostics.report.embeddings import embedding_pictures
from pyro_bnn.diagnostics.report.orbits import quotient_pictures
from pyro_bnn.diagnostics.report.pieces import Picture


class TracePictures(NamedTuple):
    """Pictures of draws in a plane, and of weights before and after the quotient."""

    embeddings: list[Picture]
    quotient: list[Picture]

    def to_json(self) -> str:
        """Write them for another process."""
        return json.dumps([[asdict(one) for one in part] for part in self])

    @classmethod
    def from_json(cls, text: str | bytes) -> TracePictures:
        """Read what another process wrote."""
        return cls(*([Picture(**one) for one in part] for part in json.loads(text)))


def trace_pictures(trace: xr.DataTree) -> TracePictures:
    """Draw them.

    Parameters
    ----------
    trace
        The trace; pictures whose groups it lacks are left out.
    """
    return TracePictures(embedding_pictures(trace), quotient_pictures(trace))
