"""Names of a package that are imported when they are first asked for.

Help, shell completion and the refusal of a word that is misspelt need no torch, whose import takes
seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["on_demand"]


def on_demand(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    homes : mapping
        Of names to the modules that define them. Modules of the package need not be listed.

    Examples
    --------
    >>> on_demand("pyro_bnn", {"UserError": "pyro_bnn.errors"})("UserError")
    <class 'pyro_bnn.errors.UserError'>
    """

    def find(name: str) -> Any:
        if name in homes:
            found = getattr(import_module(homes[name]), name)
        elif not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            found = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, found)
        return found

    return find
