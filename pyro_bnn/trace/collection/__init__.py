"""Thousands of networks of one model on disk, appended by many writers, opened lazily."""

from __future__ import annotations

from pyro_bnn.trace.collection.collection import (
    BESIDE,
    CANONICAL,
    Collection,
    is_collection,
)
from pyro_bnn.trace.collection.manifest import Record
from pyro_bnn.trace.collection.writer import CollectionWriter

__all__ = ["BESIDE", "CANONICAL", "Collection", "CollectionWriter", "Record", "is_collection"]
