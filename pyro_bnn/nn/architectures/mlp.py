"""Multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from pyro_bnn.errors import UserError

__all__ = ["mlp"]


def mlp(widths: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return linear layers with an activation between two of them.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden units of each layer, outputs; ``(2, 2, 1)`` is the toy network of figure 1
        of Laurent et al. 2024.
    activation : type of Module
        Of the hidden layers.

    Raises
    ------
    UserError
        If there are fewer than two widths, or one is not positive.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise UserError(f"mlp: widths are {tuple(widths)}, give inputs and outputs at least")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])
