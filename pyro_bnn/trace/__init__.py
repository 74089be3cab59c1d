"""The trace of a run: ArviZ's schema as an `xarray.DataTree`, on disk as NetCDF-4."""

from __future__ import annotations

from pyro_bnn.trace.assemble import GroupAppender, add_groups, assemble
from pyro_bnn.trace.checkpoints import export_checkpoints, import_checkpoints, write_trace
from pyro_bnn.trace.collection import Collection, CollectionWriter
from pyro_bnn.trace.convert import from_pyro
from pyro_bnn.trace.lock import locked
from pyro_bnn.trace.reader import check_trace, open_trace
from pyro_bnn.trace.schema import encode_attrs, site_dataset
from pyro_bnn.trace.segments import SegmentWriter, discard_segments, segment_paths
from pyro_bnn.trace.state import load_state, save_state

__all__ = [
    "Collection",
    "CollectionWriter",
    "GroupAppender",
    "SegmentWriter",
    "add_groups",
    "assemble",
    "check_trace",
    "discard_segments",
    "encode_attrs",
    "export_checkpoints",
    "from_pyro",
    "import_checkpoints",
    "load_state",
    "locked",
    "open_trace",
    "save_state",
    "segment_paths",
    "site_dataset",
    "write_trace",
]
