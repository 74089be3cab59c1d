"""What one run of a model tells: its latent sites, and what it observes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import constraints

from pyro_bnn.errors import UserError
from pyro_bnn.handlers import (
    Node,
    base_distribution,
    full_plates,
    latent_nodes,
    observed_nodes,
    without_validation,
)
from pyro_bnn.rows import Arguments
from pyro_bnn.running_statistics import Statistic, read_statistics
from pyro_bnn.sites import Site, read_site

__all__ = ["Prototype", "learn", "why_not_batched"]

# Of more rows than this, these many are enough to learn shapes from.
_MANY, _FEW = 2048, 64


@dataclass(frozen=True)
class Prototype:
    """What a model is made of.

    Attributes
    ----------
    sites : dict of str to Site
        Latent sites in the order of the model.
    statistics : dict of str to Statistic
        Running statistics that the model declares.
    observed : tuple of str
        Observed sites: factors, then those that observe a value.
    rows : int
        Rows of data that are observed, zero where what is observed has none.
    of_rows : frozenset of str
        Observed sites and factors with a term for each of these rows.
    some : Arguments
        What the model was run on: its arguments, with a few of their rows where they have many.
    subsampling, asking : set of str
        Plates that draw a subsample, and plates that name its size.
    dtype, device
        Of the first latent site.
    """

    sites: dict[str, Site]
    statistics: dict[str, Statistic]
    observed: tuple[str, ...]
    rows: int
    of_rows: frozenset[str]
    some: Arguments
    subsampling: set[str]
    asking: set[str]
    dtype: torch.dtype
    device: torch.device


def learn(model: Callable[..., Any], arguments: Arguments) -> Prototype:
    """Run a model on its data, or on a few of their rows where they have many.

    Data may be larger than memory. A model that does not run on few rows, observes another number
    of them, draws a subsample by itself or has sites that grow with the rows is run on all.

    Parameters
    ----------
    model : callable
        A Pyro model.
    arguments : Arguments
        What it is called with.

    Raises
    ------
    UserError
        If the model fails, or has no continuous latent sites.
    """
    count = arguments.longest()
    if count > _MANY:

        def of_first(some: int) -> Prototype:
            return _read(model, arguments.choose(count, lambda leaf: leaf[:some]), arguments)

        try:
            found, more = of_first(_FEW), of_first(_FEW + 1)
        except UserError:
            # With all rows it may run, and its complaint is about those.
            return _read(model, arguments, arguments)
        # Sites that grow with the rows are as long as the data.
        grow = [{n: site.shape for n, site in one.sites.items()} for one in (found, more)]
        if found.rows == _FEW and not found.asking and grow[0] == grow[1]:
            return replace(found, rows=count)
    return _read(model, arguments, arguments)


def _read(model: Callable[..., Any], arguments: Arguments, whole: Arguments) -> Prototype:
    subsampling: set[str] = set()
    asking: set[str] = set()
    with full_plates(None, subsampling, asking):
        trace = _run(model, arguments, whole)
    _refuse_other_things(trace)
    sites: dict[str, Site] = {}
    start = 0
    latent = dict(latent_nodes(trace))
    for name, node in latent.items():
        sites[name] = read_site(name, node, start)
        start = sites[name].stop
    if not sites:
        raise UserError(
            "the model has no latent site: give its weights priors with pyro.sample or lift()"
        )
    observed = dict(observed_nodes(trace))
    for name, node in observed.items():
        _refuse_broadcast(name, node, arguments.shapes())
        pairs = zip(arguments.tensors(), whole.tensors(), strict=True)
        given = (all_rows for some_rows, all_rows in pairs if some_rows is node["value"])
        _refuse_labels(name, node["fn"], next(given, node["value"]))
    factors = [name for name, node in observed.items() if isinstance(node["fn"], dist.Unit)]
    values = [name for name in observed if name not in factors]
    # The value of a factor is empty; its rows are those of the plates around it.
    shapes = {name: observed[name]["value"].shape for name in values}
    shapes |= {name: observed[name]["fn"].batch_shape for name in factors}
    rows = next((shape[0] for shape in shapes.values() if shape), 0)
    first = latent[next(iter(sites))]["value"]
    return Prototype(
        sites=sites,
        statistics=read_statistics(trace.nodes),
        observed=(*factors, *values),
        rows=rows,
        of_rows=frozenset(name for name, shape in shapes.items() if shape[:1] == (rows,)),
        some=arguments,
        subsampling=subsampling,
        asking=asking,
        dtype=first.dtype,
        device=first.device,
    )


def _refuse_other_things(trace: poutine.trace_struct.Trace) -> None:
    """Refuse sites that are sampled from no distribution, or observe no tensor."""
    for name, node in trace.nodes.items():
        if node["type"] != "sample" or site_is_subsample(node):
            continue
        if not hasattr(node["fn"], "event_dim"):
            raise UserError(
                f"site '{name}' is sampled from a {type(node['fn']).__name__}: give it a Pyro "
                "distribution"
            )
        if not isinstance(node["value"], Tensor):
            raise UserError(
                f"site '{name}' observes a {type(node['value']).__name__}: give it a tensor"
            )


def _run(
    model: Callable[..., Any], arguments: Arguments, whole: Arguments
) -> poutine.trace_struct.Trace:
    try:
        with torch.random.fork_rng(devices=[]):
            trace = poutine.trace(model)
            try:
                return trace.get_trace(*arguments.args, **arguments.kwargs)
            except ValueError:
                # A draw from the prior may lie where a distribution is not defined. Such
                # starts have no finite density and are drawn again.
                with without_validation():
                    return trace.get_trace(*arguments.args, **arguments.kwargs)
    except UserError as error:
        # Pyro appends its table of shapes to the message of whatever a model raises.
        raise UserError(str(error).splitlines()[0]) from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        hint = ""
        if "same dtype" in reason or "scalar type" in reason:
            hint = "; give the network and the data one precision: x.float(), or net.double()"
        raise UserError(
            f"the model failed on data of shape {whole.shapes()}: "
            f"{type(error).__name__}: {reason}{hint}"
        ) from error


def _refuse_broadcast(name: str, node: Node, shapes: str) -> None:
    """Refuse data that would multiply the terms of a likelihood, such as (n, 1) against (n,)."""
    fn = node["fn"]
    batch = node["value"].shape[: node["value"].ndim - fn.event_dim]
    try:
        agrees = torch.broadcast_shapes(batch, fn.batch_shape) == fn.batch_shape
    except RuntimeError:
        agrees = False
    if not agrees:
        raise UserError(
            f"site '{name}' observes values of shape {tuple(node['value'].shape)} under a "
            f"likelihood of shape {tuple(fn.batch_shape + fn.event_shape)}; the data are of "
            f"shape {shapes}: make their rows agree"
        )


def _refuse_labels(name: str, law: Any, value: Tensor) -> None:
    """Refuse labels that the likelihood has no probability of, or that it cannot multiply by."""
    law = base_distribution(law)
    if isinstance(law, dist.Bernoulli) and not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise UserError(
            f"site '{name}' observes labels of type {kind} under a Bernoulli: give it y.float()"
        )
    if isinstance(law, dist.Categorical) and value.numel():
        classes = law.param_shape[-1]
        low, high = float(value.min()), float(value.max())
        if low < 0 or high >= classes:
            raise UserError(
                f"site '{name}' observes labels from {low:g} to {high:g} under a Categorical of "
                f"{classes} classes: they have to be numbered from 0 to {classes - 1}"
            )
    outside = _outside(law, value)
    if outside.numel():
        raise UserError(
            f"site '{name}' observes {float(outside[0]):g} under a {type(law).__name__}, whose "
            f"support is {type(law).support}"
        )


def _outside(law: Any, value: Tensor) -> Tensor:
    """Values that are no number of the law's support, where that is the same for all parameters."""
    support = getattr(type(law), "support", None)
    if not isinstance(support, constraints.Constraint) or constraints.is_dependent(support):
        return value.new_zeros(0)
    if support is constraints.real or support.event_dim:
        return value.new_zeros(0)
    return value[~(support.check(value) | value.isnan())]


def why_not_batched(message: str) -> str:
    """Say what to change in a model that fails under ``vmap`` with a message."""
    if "random operation" in message:
        return (
            "the model draws random numbers outside of pyro.sample (dropout in training mode, "
            "torch.rand, an unobserved likelihood): make the draw a latent site, call .eval() on "
            "the network, or pass the observed data"
        )
    if "data-dependent control flow" in message or ".item()" in message:
        return (
            "the model branches on the value of a latent site (if, while, .item()): replace the "
            "branch by torch.where, so that all chains take one path"
        )
    return f"the model cannot be evaluated for a batch of chains: {message.strip().splitlines()[0]}"
