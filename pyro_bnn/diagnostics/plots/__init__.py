"""The pictures of a report, one a file; each function returns a matplotlib figure."""

from __future__ import annotations
