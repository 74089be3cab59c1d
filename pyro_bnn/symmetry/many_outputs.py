"""A network at inputs enough to tell its weights apart: noise of the shape of the example."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyro_bnn.errors import UserError
from pyro_bnn.graph import trace_graph
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry.computation import (
    Computation,
    computation,
    is_network,
    to_host,
    weights_of,
)

SPARE = 8
OUTPUTS_PER_WEIGHT = (8, 4, 2, 1)
"""Rectifiers are off in many rows: the most that the inputs leave room for is taken."""
MOST_INPUTS = 1 << 21


def with_outputs(source: Any, args: tuple[Any, ...], count: int) -> Computation:
    """Read a network with at least `count` outputs.

    Parameters
    ----------
    source : LogDensity, callable or torch.nn.Module
        Of a model the outputs are the log probabilities of single observations.
    args : tuple
        The data of the model, or the example input of the module, whose first axis runs over
        rows that can be made more.
    count : int

    Raises
    ------
    UserError
        If the inputs would take too much memory.
    """
    if is_network(source):
        outputs = len(_at_zero(computation(source, *args)))
        numbers = sum(leaf.numel() for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor))
        factor = math.ceil(_enough(count, numbers / max(outputs, 1)) / max(outputs, 1))
        return computation(source, *_longer(args, factor))
    density = source if isinstance(source, LogDensity) else LogDensity(source, *args)
    return _observations(density, count)


def _enough(count: int, numbers: float) -> int:
    """Return how many outputs to ask for, each of which takes some numbers of the input."""
    wanted = [times * count + SPARE for times in OUTPUTS_PER_WEIGHT]
    return next((n for n in wanted if n * numbers <= MOST_INPUTS), wanted[-1])


def _at_zero(read: Computation) -> Tensor:
    return read({n: torch.ones(w.shape, dtype=torch.float64) for n, w in read.weights.items()})


def _longer(args: tuple[Any, ...], factor: int) -> tuple[Any, ...]:
    """Repeat the rows of all tensors; whole numbers are drawn anew from those there are."""
    tensors = [leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor)]
    _require_room(factor * sum(leaf.numel() for leaf in tensors))
    generator = torch.Generator().manual_seed(0)

    def longer(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.ndim:
            return leaf
        return _noise(leaf.detach().cpu(), factor * leaf.shape[0], generator).to(leaf.device)

    longer_args: tuple[Any, ...] = pytree.tree_map(longer, args)
    return longer_args


def _observations(density: LogDensity, count: int) -> Computation:
    """Read the log probability of each observation of data of other rows."""
    names = tuple(density.stored)
    generator = torch.Generator().manual_seed(0)
    numbers = sum(leaf[0].numel() for leaf in density.row_data()) if density.rows else 0
    rows = _enough(count, numbers)
    _require_room(rows * numbers)

    def other(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.ndim or leaf.shape[0] != density.rows:
            return leaf
        return _noise(leaf.detach().cpu(), rows, generator).to(leaf.device)

    args, kwargs = pytree.tree_map(other, (density.args, density.kwargs))

    def log_probabilities(*values: Tensor) -> list[Tensor]:
        trace = density.trace_at(dict(zip(names, values, strict=True)), *args, **kwargs)
        return [trace.nodes[name]["log_prob"] for name in density.observed]

    example = list(density.example_values().values())
    graph = trace_graph(log_probabilities, *example, pre_dispatch=True)
    return Computation(to_host(graph), weights_of(density, names))


def _noise(like: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """Return noise with other rows: of one sign if the values are, of the values if whole."""
    shape = (rows, *like.shape[1:])
    if not like.is_floating_point():
        chosen = torch.randint(like.numel(), shape, generator=generator)
        return like.flatten()[chosen]
    noise = torch.randn(shape, generator=generator, dtype=like.dtype)
    one_sign = like.numel() > 1 and float(like.min()) >= 0 and float(like.max()) > 0
    return noise.abs() if one_sign else noise


def _require_room(numbers: int) -> None:
    if numbers > MOST_INPUTS:
        raise UserError(
            f"telling the weights apart takes inputs of {numbers} numbers: measure completeness "
            "on smaller inputs"
        )
