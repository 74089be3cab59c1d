"""What belongs to a network and not to the rows of its data, sampled as if no plate were open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK

__all__ = ["outside_plates"]


@contextmanager
def outside_plates() -> Iterator[None]:
    """Sample as if no plate were open.

    A network is one global set of weights however many data its plate holds, and model scripts
    call it inside of the data plate, where Pyro would draw one set for each datum.
    """
    held = list(_PYRO_STACK)
    _PYRO_STACK[:] = [handler for handler in held if not isinstance(handler, IndepMessenger)]
    try:
        yield
    finally:
        _PYRO_STACK[:] = held
