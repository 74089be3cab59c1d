"""Running a Pyro model as a function: sites held fixed, plates in full, no validation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import SubsampleMessenger, _Subsample
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.attention import SDPBackend, sdpa_kernel

from pyro_bnn.running_statistics import is_statistic

__all__ = [
    "Node",
    "base_distribution",
    "batchable",
    "full_plates",
    "latent_nodes",
    "observed_nodes",
    "run_model",
    "sum_log_likelihood",
    "without_validation",
]

Node = Mapping[str, Any]
"""One site of a Pyro trace."""


def run_model(
    model: Callable[..., Any],
    values: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    indices: Tensor | None,
) -> poutine.trace_struct.Trace:
    """Run a model once with its latent sites held at `values`.

    Parameters
    ----------
    model : callable
        A Pyro model.
    values : mapping
        Constrained values of its latent sites, and of running statistics that are to be held.
    args, kwargs
        What it is called with.
    indices : Tensor, optional
        What plates that would draw a subsample take; the whole range by default.

    Returns
    -------
    Trace
        Pyro's trace, with the log probability of each site computed.
    """
    with full_plates(indices):
        trace = poutine.trace(_Fix(values)(model)).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return trace


def latent_nodes(trace: poutine.trace_struct.Trace) -> Iterator[tuple[str, Node]]:
    """Go through the latent sites of a trace."""
    for name, node in _sample_nodes(trace):
        if not node["is_observed"]:
            yield name, node


def sum_log_likelihood(
    trace: poutine.trace_struct.Trace,
    latent: Collection[str],
    of_rows: Collection[str] = (),
    share: float = 1.0,
) -> Tensor:
    """Sum the log probabilities of all sites that are not `latent`.

    Those of the sites `of_rows`, a term for each row of a minibatch, count `share` times.
    """
    rows: list[Tensor] = []
    others: list[Tensor] = []
    for name, node in _sample_nodes(trace):
        if name not in latent:
            (rows if name in of_rows else others).append(node["log_prob_sum"])
    terms = ([sum(rows[1:], rows[0]) * share] if rows else []) + others
    start: Tensor = trace.nodes[next(iter(latent))]["log_prob_sum"] * 0 if not terms else terms[0]
    return sum(terms[1:], start)


def observed_nodes(trace: poutine.trace_struct.Trace) -> Iterator[tuple[str, Node]]:
    """Go through the observed sites of a trace, ``pyro.deterministic`` statements left out."""
    for name, node in _sample_nodes(trace):
        if node["is_observed"] and not node["infer"].get("_deterministic", False):
            yield name, node


def base_distribution(law: Any) -> Any:
    """Return the distribution inside of ``.to_event()`` and ``.mask()``."""
    while isinstance(law, dist.Independent | MaskedDistribution):
        law = law.base_dist
    return law


@contextmanager
def without_validation() -> Iterator[None]:
    """Switch off distribution validation, which branches on values and cannot be traced.

    Pyro's switch reaches the distributions that are made while it is off. A prior that was made
    before, of a ``PyroSample`` or at the top of a script, would go on to validate what it is asked
    about; so the validating function itself is replaced meanwhile.
    """
    original = Distribution.__dict__["_validate_sample"]
    setattr(Distribution, "_validate_sample", lambda *_: None)  # noqa: B010
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        setattr(Distribution, "_validate_sample", original)  # noqa: B010


@contextmanager
def batchable() -> Iterator[None]:
    """Switch off what ``vmap`` cannot batch: validation, and attention as one fused operator."""
    with without_validation(), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def full_plates(
    indices: Tensor | None, drawing: set[str] | None = None, asking: set[str] | None = None
) -> Iterator[None]:
    """Let plates that would draw a random subsample take the whole range, or given indices.

    Pyro fixes the size of a subsample when the plate is built, before any handler sees it, and a
    density may not draw; so the drawing function itself is replaced for the length of one call.
    The names of such plates are added to `drawing`, those of plates that name the size of a
    subsample, be it as large as the range, to `asking`.
    """
    original = SubsampleMessenger.__dict__["_subsample"]
    draw = SubsampleMessenger._subsample

    def chosen(
        name: str,
        size: int | None = None,
        subsample_size: int | None = None,
        subsample: Tensor | None = None,
        use_cuda: bool | None = None,
        device: Any = None,
    ) -> tuple[int, int, Tensor | None]:
        if asking is not None and subsample_size is not None:
            asking.add(name)
        draws = size is not None and subsample is None and (subsample_size or size) < size
        if not draws:
            return draw(name, size, subsample_size, subsample, use_cuda, device)
        assert size is not None
        if drawing is not None:
            drawing.add(name)
        picked = torch.arange(size, device=device) if indices is None else indices
        return size, len(picked), picked

    setattr(SubsampleMessenger, "_subsample", staticmethod(chosen))  # noqa: B010
    try:
        yield
    finally:
        setattr(SubsampleMessenger, "_subsample", original)  # noqa: B010


class _Fix(Messenger):
    """Give latent sites their values, and running statistics those at which they are held."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, message: dict[str, Any]) -> None:
        if message["name"] in self.values and (not message["is_observed"] or is_statistic(message)):
            message["value"] = self.values[message["name"]]


def _sample_nodes(trace: poutine.trace_struct.Trace) -> Iterator[tuple[str, Node]]:
    for name, node in trace.nodes.items():
        if node["type"] == "sample" and not isinstance(node["fn"], _Subsample):
            yield name, node
