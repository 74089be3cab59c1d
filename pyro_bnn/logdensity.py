"""A Pyro model as a pure, batched function of its latent sites."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyro.poutine as poutine
import torch
from pyro.infer.autoguide.initialization import InitMessenger, init_to_sample
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import ComposeTransform, IndependentTransform
from torch.func import grad_and_value, vmap
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from pyro_bnn.errors import UserError
from pyro_bnn.gradient import trace_gradient
from pyro_bnn.graph import trace_graph
from pyro_bnn.handlers import (
    Node,
    batchable,
    full_plates,
    latent_nodes,
    observed_nodes,
    run_model,
    sum_log_likelihood,
    without_validation,
)

__all__ = ["WORTH_COMPILING", "LogDensity", "Rows", "Site"]

# Chain-gradients from which on a run earns back the time of a compilation that starts from cold,
# by the figures of benchmarks/gradient_vs_jax.py.
WORTH_COMPILING = 500_000

Position = TypeVar("Position", Tensor, Mapping[str, Tensor])

Rows = Tensor | tuple[Tensor, ...]
"""A minibatch: the numbers of its rows, or the rows themselves, one tensor for each of data."""


@dataclass(frozen=True)
class Site:
    """One latent site of a model.

    Attributes
    ----------
    name : str
        The site's name in the model.
    shape : torch.Size
        Shape of a value in the site's own (constrained) space.
    unconstrained_shape : torch.Size
        Shape of the same value in unconstrained space.
    support : Constraint
        Where a value may lie.
    transform : Transform
        From unconstrained space to the support.
    start, stop : int
        The site's part of a flat position ``(chain, dim)``.
    """

    name: str
    shape: torch.Size
    unconstrained_shape: torch.Size
    support: constraints.Constraint
    transform: Transform
    start: int
    stop: int


class LogDensity:
    """The log density of a Pyro model's latent sites, for many chains at once.

    The model runs once, to learn its sites. After that every method is a pure function of a
    position in unconstrained space: a flat tensor ``(chain, dim)`` or a dict of site tensors
    ``(chain, *unconstrained_shape)``. The transforms' log-Jacobians belong to the prior, so that
    ``potential = -(log_prior + log_likelihood)`` is the potential energy that HMC moves in.

    Gradients are ``vmap(grad_and_value(potential))`` traced to a plain ATen graph at the first
    call with a given number of chains: no Pyro and no functorch Python runs per step. Where
    tracing fails the untraced ``vmap`` is used; `gradient_path` says which, and why.

    Parameters
    ----------
    model : callable
        A Pyro model with continuous latent sites.
    *args, **kwargs
        What the model is called with: the observed data.

    Raises
    ------
    UserError
        If the model fails on its data, has discrete latent sites or none at all, draws random
        numbers outside of ``pyro.sample`` or branches on the value of a latent site.

    Examples
    --------
    >>> import torch, pyro, pyro.distributions as dist
    >>> def model(y):
    ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(y)):
    ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> density = LogDensity(model, torch.zeros(3))
    >>> value, gradient = density.value_and_grad(torch.zeros(2, 1))
    >>> value.shape, gradient.shape
    (torch.Size([2]), torch.Size([2, 1]))
    """

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.gradient_path = "not yet traced"
        self.likelihood_temperature = 1.0
        self.posterior_temperature = 1.0
        self._compiled = False
        self._chunk = 0
        self._graphs: dict[tuple[Any, ...], Callable[..., tuple[Tensor, Tensor]]] = {}

        self._subsample_plates: set[str] = set()
        prototype = self._prototype()
        self.sites: dict[str, Site] = {}
        start = 0
        for name, node in latent_nodes(prototype):
            site = _site(name, node, start)
            self.sites[name] = site
            start = site.stop
        if not self.sites:
            raise UserError(
                "the model has no latent site: give its weights priors with pyro.sample or lift()"
            )
        self.dim = start
        observed = dict(observed_nodes(prototype))
        self.observed = tuple(observed)
        shapes = [node["value"].shape for node in observed.values()]
        self.rows = next((shape[0] for shape in shapes if shape), 0)
        for name, node in observed.items():
            _refuse_broadcast(name, node, self._data_shapes())
        first: Tensor = dict(latent_nodes(prototype))[next(iter(self.sites))]["value"]
        self.dtype: torch.dtype = first.dtype
        self.device: torch.device = first.device
        self._check_batchable()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graphs, which another process traces for itself."""
        return {**self.__dict__, "_graphs": {}}

    # Positions

    def flatten(self, sites: Mapping[str, Tensor]) -> Tensor:
        """Put a dict of unconstrained site tensors into one tensor ``(chain, dim)``."""
        parts = [sites[name] for name in self.sites]
        return torch.cat([part.reshape(part.shape[0], -1) for part in parts], dim=1)

    def unflatten(self, position: Tensor) -> dict[str, Tensor]:
        """Split ``(chain, dim)`` into site tensors ``(chain, *unconstrained_shape)``."""
        return {
            site.name: position[:, site.start : site.stop].reshape(-1, *site.unconstrained_shape)
            for site in self.sites.values()
        }

    def constrain(self, position: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map a position to the sites' own spaces: a dict of ``(chain, *shape)``."""
        sites = self.unflatten(position) if isinstance(position, Tensor) else position
        return {name: site.transform(sites[name]) for name, site in self.sites.items()}

    def unconstrain(self, values: Mapping[str, Tensor]) -> Tensor:
        """Map site values ``(chain, *shape)`` to a flat position ``(chain, dim)``.

        Raises
        ------
        UserError
            If a site is missing or has another shape.
        """
        for name, site in self.sites.items():
            if name not in values:
                raise UserError(f"site '{name}' is missing from the values: the model samples it")
            if values[name].shape[1:] != site.shape:
                raise UserError(
                    f"site '{name}' has shape {tuple(values[name].shape[1:])} but the model "
                    f"samples {tuple(site.shape)}: give values (chain, *{tuple(site.shape)})"
                )
        return self.flatten(
            {name: site.transform.inv(values[name]) for name, site in self.sites.items()}
        )

    def initial_position(
        self,
        num_chains: int,
        generator: torch.Generator,
        *,
        strategy: Callable[..., Any] | None = None,
        attempts: int = 100,
    ) -> Tensor:
        """Draw starting positions ``(chain, dim)``.

        Chains whose potential energy or gradient is not finite are drawn again.

        Parameters
        ----------
        num_chains : int
            How many.
        generator : torch.Generator
            Source of the seed.
        strategy : callable, optional
            One of Pyro's ``init_to_*`` functions; draws from the prior by default.
        attempts : int
            How often a chain may be drawn again.

        Raises
        ------
        UserError
            If a chain finds no finite start in `attempts` draws; names the site at fault and
            the value that its log density had.
        """
        strategy = strategy or init_to_sample
        position = self._starts(num_chains, generator, strategy)
        for _ in range(attempts):
            value, gradient = self.value_and_grad(position)
            bad = ~(value.isfinite() & gradient.isfinite().all(dim=1))
            if not bool(bad.any()):
                return position
            fresh = self._starts(int(bad.sum()), generator, strategy)
            position = position.clone()
            position[bad] = fresh
        raise UserError(self.explain_start(position[bad][0]))

    def explain_start(self, position: Tensor) -> str:
        """Say which site makes the density at one position ``(dim,)`` not finite."""
        values = {name: value[0] for name, value in self.constrain(position[None]).items()}
        with without_validation():
            trace = self.trace_at(values)
        for name, node in trace.nodes.items():
            if node["type"] == "sample" and not bool(torch.isfinite(node["log_prob_sum"])):
                return (
                    f"the log density at the start is {float(node['log_prob_sum'])} at site "
                    f"'{name}': check its distribution and its data for NaN, infinities and "
                    "values outside of the support"
                )
        return (
            "the gradient of the log density at the start is not finite: check the model for "
            "operations such as sqrt(0) or log(0)"
        )

    # Densities

    def log_prior(self, position: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Log prior density in unconstrained space, log-Jacobians included: ``(chain,)``."""
        first = torch.arange(1, device=self.device) if self._chunk else None
        batched = self._batched(lambda z, rows: self._parts(z, rows)[0])
        return batched(self._flat(position), first)[0]

    def log_likelihood(
        self, position: Tensor | Mapping[str, Tensor], indices: Tensor | None = None
    ) -> Tensor:
        """Log likelihood ``(chain,)``; of a minibatch it is the estimate scaled by N / B."""
        batched = self._batched(lambda z, rows: self._parts(z, rows)[1])
        return self._over_chunks(batched, self._flat(position), indices)[0]

    def potential(
        self, position: Tensor | Mapping[str, Tensor], indices: Tensor | None = None
    ) -> Tensor:
        """Potential energy ``(chain,)``: minus the tempered log posterior, up to a constant."""
        return self._over_chunks(self._batched(self._potential), self._flat(position), indices)[0]

    def value_and_grad(
        self, position: Position, indices: Rows | None = None
    ) -> tuple[Tensor, Position]:
        """Potential energy and its gradient for every chain.

        Parameters
        ----------
        position : Tensor or mapping
            Flat ``(chain, dim)``, or a dict of site tensors.
        indices : Tensor or tuple of Tensor, optional
            Rows of the data to use, ``(batch,)`` for all chains or ``(chain, batch)``, one set a
            chain; every argument of the model with as many rows as are observed is indexed. Or
            the rows themselves, as augmentation makes them: a tensor ``(chain, batch, ...)`` in
            place of each of these arguments. The likelihood is scaled by N / B, as Pyro's
            subsampled plates do. Without it, the whole data set, also where the model's plate
            subsamples.

        Returns
        -------
        value : Tensor
            Potential energies ``(chain,)``.
        gradient : Tensor or dict
            In the form that `position` had.
        """
        flat = self._flat(position)
        value, gradient = self._over_chunks(self._gradient, flat, indices)
        if isinstance(position, Tensor):
            return value, gradient
        return value, self.unflatten(gradient)

    def tempered(self, *, likelihood: float = 1.0, posterior: float = 1.0) -> LogDensity:
        """Return the same density at another temperature.

        Parameters
        ----------
        likelihood : float
            Divides the log likelihood alone.
        posterior : float
            Divides the whole log posterior: below 1, a cold posterior (Wenzel et al. 2020).

        Raises
        ------
        UserError
            If a temperature is not positive.
        """
        if likelihood <= 0 or posterior <= 0:
            raise UserError("temperatures have to be positive")
        other = copy.copy(self)
        other.likelihood_temperature = likelihood
        other.posterior_temperature = posterior
        other._graphs = {}
        return other

    def chunked(self, rows: int) -> LogDensity:
        """Return the same density with its likelihood added up over chunks of the data.

        Full-batch values and gradients are exact, while the activations of no more than `rows`
        rows are in memory at a time; the data may be a memory-mapped tensor that is larger than
        memory. Minibatches are not affected.

        Parameters
        ----------
        rows : int
            Rows of a chunk; the last one takes what is left.

        Returns
        -------
        LogDensity
            A copy that shares the model and its data.

        Raises
        ------
        UserError
            If `rows` is not positive, or no data are observed that have rows.

        References
        ----------
        Izmailov et al. (2021), What Are Bayesian Neural Network Posteriors Really Like?
        Full-batch gradients for Hamiltonian Monte Carlo.
        """
        if rows < 1:
            raise UserError(f"chunks of {rows} rows hold no data: give a positive number of rows")
        if not self.rows:
            raise UserError("the model observes nothing that has rows: there is nothing to chunk")
        other = copy.copy(self)
        other._chunk = 0 if rows >= self.rows else rows
        return other

    def compiled(self) -> LogDensity:
        """Return the same density with its gradients compiled.

        Compiling takes 10 to 30 seconds for each number of chains, 2 where PyTorch finds the
        result of an earlier run on disk, and pays from about `WORTH_COMPILING` chain-gradients
        on. Values stay the same to rounding. What cannot be compiled, for want of a C++ compiler
        or for an operator that the compiler refuses, runs as before, and `gradient_path` says
        why.

        Returns
        -------
        LogDensity
            A copy that shares the model and its data.
        """
        other = copy.copy(self)
        other._compiled = True
        other._graphs = {}
        other.gradient_path = "not yet traced"
        return other

    # The model itself

    def trace_at(
        self, values: Mapping[str, Tensor], *args: Any, **kwargs: Any
    ) -> poutine.trace_struct.Trace:
        """Run the model once with its latent sites fixed to `values` (without a chain axis).

        Parameters
        ----------
        values : mapping
            Constrained site values.
        *args, **kwargs
            Other data for the model; the data of the density itself when none are given.

        Returns
        -------
        Trace
            Pyro's trace, with the log probability of each site computed.
        """
        if not args and not kwargs:
            args, kwargs = self.args, self.kwargs
        return run_model(self.model, values, args, kwargs, None)

    def likelihood_graph(self) -> GraphModule:
        """Trace the log likelihood, for one draw, as a function of the constrained sites.

        Composite operators stay whole and the data are constants of the graph: this is what
        symmetry discovery reads. ``graph.meta["sites"]`` names the placeholders in order.
        """
        names = tuple(self.sites)

        def log_likelihood(*values: Tensor) -> Tensor:
            trace = run_model(
                self.model, dict(zip(names, values, strict=True)), self.args, self.kwargs, None
            )
            return sum_log_likelihood(trace, self.sites)

        with without_validation():
            example = [
                site.transform(torch.full(site.unconstrained_shape, 0.1).to(self._like))
                for site in self.sites.values()
            ]
            graph = trace_graph(log_likelihood, *example, pre_dispatch=True)
        graph.meta["sites"] = names
        return graph

    def minibatch(self, indices: Rows | None) -> tuple[tuple[Any, ...], dict[str, Any], float]:
        """Return the model's arguments for a minibatch without a chain axis, and N / B."""
        if indices is None or (self._subsample_plates and isinstance(indices, Tensor)):
            return self.args, self.kwargs, 1.0
        rows = self.rows
        given = None if isinstance(indices, Tensor) else iter(indices)
        size = indices.shape[-1] if isinstance(indices, Tensor) else len(indices[0])

        def pick(leaf: Any) -> Any:
            if not (isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == rows):
                return leaf
            return leaf[indices] if given is None else next(given)

        args, kwargs = pytree.tree_map(pick, (self.args, self.kwargs))
        return args, kwargs, rows / size

    # Private

    @property
    def _like(self) -> Tensor:
        return torch.empty(0, dtype=self.dtype, device=self.device)

    def _flat(self, position: Tensor | Mapping[str, Tensor]) -> Tensor:
        return position if isinstance(position, Tensor) else self.flatten(position)

    def _prototype(self) -> poutine.trace_struct.Trace:
        try:
            with (
                torch.random.fork_rng(devices=[]),
                full_plates(None, self._subsample_plates),
            ):
                trace = poutine.trace(self.model)
                try:
                    return trace.get_trace(*self.args, **self.kwargs)
                except ValueError:
                    # A draw from the prior may lie where a distribution is not defined. Such
                    # starts have no finite density and are drawn again.
                    with without_validation():
                        return trace.get_trace(*self.args, **self.kwargs)
        except UserError as error:
            # Pyro appends its table of shapes to the message of whatever a model raises.
            raise UserError(str(error).splitlines()[0]) from error
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise UserError(
                f"the model failed on data of shape {self._data_shapes()}: "
                f"{type(error).__name__}: {reason[0] if reason else ''}"
            ) from error

    def _data_leaves(self) -> list[Tensor]:
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def _data_shapes(self) -> str:
        return ", ".join(str(tuple(leaf.shape)) for leaf in self._data_leaves()) or "none"

    def _starts(
        self, count: int, generator: torch.Generator, strategy: Callable[..., Any]
    ) -> Tensor:
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        draws: list[dict[str, Tensor]] = []
        with (
            torch.random.fork_rng(devices=_cuda_index(self.device)),
            torch.no_grad(),
            without_validation(),
            full_plates(None),
        ):
            torch.manual_seed(seed)
            model = InitMessenger(strategy)(self.model)
            for _ in range(count):
                trace = poutine.trace(model).get_trace(*self.args, **self.kwargs)
                draws.append({name: node["value"] for name, node in latent_nodes(trace)})
        return self.unconstrain({n: torch.stack([draw[n] for draw in draws]) for n in self.sites})

    def _parts(self, z: Tensor, indices: Rows | None) -> tuple[Tensor, Tensor]:
        """Log prior and log likelihood of one chain's flat position ``(dim,)``."""
        pieces = torch.split(z, [site.stop - site.start for site in self.sites.values()])
        values: dict[str, Tensor] = {}
        log_det = z.new_zeros(())
        for site, piece in zip(self.sites.values(), pieces, strict=True):
            unconstrained = piece.reshape(site.unconstrained_shape)
            values[site.name] = site.transform(unconstrained)
            if not _is_identity(site.transform):
                log_det = (
                    log_det
                    + site.transform.log_abs_det_jacobian(unconstrained, values[site.name]).sum()
                )
        chosen = indices if isinstance(indices, Tensor) else None
        args, kwargs, scale = self.minibatch(indices)
        trace = run_model(self.model, values, args, kwargs, chosen)
        prior = sum((trace.nodes[name]["log_prob_sum"] for name in self.sites), log_det)
        return prior, sum_log_likelihood(trace, self.sites) * scale

    def _potential(self, z: Tensor, indices: Rows | None) -> Tensor:
        prior, likelihood = self._parts(z, indices)
        return -(prior + likelihood / self.likelihood_temperature) / self.posterior_temperature

    def _batched(
        self, function: Callable[[Tensor, Rows | None], Tensor]
    ) -> Callable[[Tensor, Rows | None], tuple[Tensor, ...]]:
        def evaluate(position: Tensor, indices: Rows | None) -> tuple[Tensor, ...]:
            with batchable():
                return (vmap(lambda z: function(z, indices))(position),)

        return evaluate

    def _gradient(self, position: Tensor, indices: Rows | None) -> tuple[Tensor, ...]:
        rows = _as_tuple(indices)
        return self._gradient_function(position, indices)(position, *rows)

    def _over_chunks(
        self,
        function: Callable[[Tensor, Rows | None], tuple[Tensor, ...]],
        position: Tensor,
        indices: Rows | None,
    ) -> tuple[Tensor, ...]:
        """Add up a function of the rows over chunks of all rows, where these are set.

        A minibatch of B of N rows scales its likelihood by N / B. With the weights B / N the
        likelihoods of the chunks add up to that of all rows, and their priors to one prior.
        """
        if indices is not None or not self._chunk:
            return function(position, indices)
        totals: list[Tensor] = []
        for rows in torch.arange(self.rows, device=self.device).split(self._chunk):
            weight = len(rows) / self.rows
            parts = [weight * part for part in function(position, rows)]
            totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
        return tuple(totals)

    def _gradient_function(
        self, position: Tensor, indices: Rows | None
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        shapes = tuple(tensor.shape for tensor in _as_tuple(indices))
        key = (position.shape, position.dtype, isinstance(indices, Tensor), *shapes)
        if key not in self._graphs:
            self._graphs[key] = self._trace_gradient(position, indices)
        return self._graphs[key]

    def _trace_gradient(
        self, position: Tensor, indices: Rows | None
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        def potential(z: Tensor, *rows: Tensor) -> Tensor:
            if indices is None:
                return self._potential(z, None)
            return self._potential(z, rows[0] if isinstance(indices, Tensor) else rows)

        inputs = (position, *_as_tuple(indices))
        shared = isinstance(indices, Tensor) and indices.ndim == 1
        in_dims = (0, *(None if shared else 0 for _ in inputs[1:]))
        plain: Callable[..., Any] = vmap(grad_and_value(potential), in_dims=in_dims)

        def swapped(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            with batchable():
                gradient, value = plain(*tensors)
            return value, gradient

        gradient, self.gradient_path = trace_gradient(swapped, *inputs, compiled=self._compiled)
        return gradient

    def _check_batchable(self) -> None:
        position = torch.full((2, self.dim), 0.1, dtype=self.dtype, device=self.device)
        try:
            first, second = self.potential(position), self.potential(position)
        except RuntimeError as error:
            raise UserError(_why_not_batched(str(error))) from error
        if not torch.equal(first.nan_to_num(), second.nan_to_num()):
            raise UserError(
                "the model draws random numbers outside of pyro.sample: its log density changes "
                "from one call to the next; make the draw a latent site or fix it before the model"
            )


def _site(name: str, node: Node, start: int) -> Site:
    if "/" in name:
        raise UserError(f"site '{name}' has a '/' in its name: rename it, a trace cannot store it")
    support = node["fn"].support
    if support.is_discrete:
        raise UserError(
            f"latent site '{name}' is discrete ({type(node['fn']).__name__}): gradient-based "
            "samplers need continuous sites; sum it out or observe it"
        )
    transform = biject_to(support)
    shape = node["value"].shape
    unconstrained = transform.inverse_shape(shape)
    return Site(
        name, shape, unconstrained, support, transform, start, start + unconstrained.numel()
    )


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


def _as_tuple(indices: Rows | None) -> tuple[Tensor, ...]:
    if indices is None:
        return ()
    return (indices,) if isinstance(indices, Tensor) else tuple(indices)


def _is_identity(transform: Transform) -> bool:
    if isinstance(transform, IndependentTransform):
        return _is_identity(transform.base_transform)
    return isinstance(transform, ComposeTransform) and not transform.parts


def _cuda_index(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _why_not_batched(message: str) -> str:
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
