"""What the commands print: lines that fit a terminal, and one sentence where something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any

from rich.console import Console

from pyro_bnn.errors import UserError
from pyro_bnn.halving import ran_out_of_memory

__all__ = ["console", "told_in_a_sentence"]

# Words that are small after a colon; other sentences begin with a name, of a file for example.
_BEGINNINGS = frozenset(("A", "Dimension", "Draws", "Nothing", "Segment", "Site", "The", "There"))


def console() -> Console:
    """Return where commands print: 80 columns of plain text where nobody watches.

    Brackets and colons mean nothing in it: names of files may have them.
    """
    watched = sys.stdout.isatty()
    return Console(
        width=None if watched else 80,
        no_color=None if watched else True,
        force_terminal=None if watched else False,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def told_in_a_sentence(command: Callable[[], Any]) -> None:
    """Run a command; what is wrong with its input or the machine ends in a sentence and code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A dash or a name that the terminal cannot show is no reason to stop.
            stream.reconfigure(errors="replace")
    try:
        command()
    except UserError as error:
        # Pyro appends a table of shapes to what is raised inside of a model.
        sentence = str(error).partition("\n")[0]
    except OSError as error:
        named = error.filename or "a file"
        reason = error.strerror or error
        sentence = f"{named} cannot be read or written: {reason}; check the name and your rights"
    except (RuntimeError, MemoryError) as error:
        if ran_out_of_memory(error):
            sentence = "memory ran out: end other programs, or ask for fewer chains, draws or rows"
        elif "NetCDF" in str(error):
            sentence = f"a trace cannot be read ({error}): restore it from a copy"
        else:
            raise
    else:
        return
    if sentence.partition(" ")[0] in _BEGINNINGS:
        sentence = sentence[:1].lower() + sentence[1:]
    print(f"pyro-bnn: {sentence}", file=sys.stderr)
    sys.exit(2)
