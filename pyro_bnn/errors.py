"""The one exception that is meant for the person who runs a model, not for its debugger."""

from __future__ import annotations


class UserError(ValueError):
    """Input that cannot be worked with, told in one sentence.

    The message names the site, layer, file or key at fault and says what to do about it.
    The command line prints it without a traceback and exits with code 2.
    """
