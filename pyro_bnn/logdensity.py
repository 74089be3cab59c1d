"""A Pyro model as a pure, batched function of its latent sites."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import pyro.poutine as poutine
import torch
from pyro.infer.autoguide.initialization import InitMessenger, init_to_sample
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.fx import GraphModule

from pyro_bnn.errors import UserError
from pyro_bnn.gradient import trace_gradient
from pyro_bnn.graph import trace_graph
from pyro_bnn.handlers import (
    batchable,
    full_plates,
    latent_nodes,
    run_model,
    sum_log_likelihood,
    without_validation,
)
from pyro_bnn.prototype import learn, why_not_batched
from pyro_bnn.rows import Arguments, Rows, as_tuple
from pyro_bnn.sites import Site, example_values, is_identity

__all__ = ["WORTH_COMPILING", "LogDensity", "Rows", "Site"]

# Chain-gradients from which on a run earns back the time of a compilation that starts from cold,
# by the figures of benchmarks/gradient_vs_jax.py.
WORTH_COMPILING = 200_000

Position = TypeVar("Position", Tensor, Mapping[str, Tensor])


class LogDensity:
    """The log density of a Pyro model's latent sites, for many chains at once.

    The model runs once, to learn its sites: on a few rows where its data have thousands. After
    that every method is a pure function of a position in unconstrained space: a flat tensor
    ``(chain, dim)`` or a dict of site tensors ``(chain, *unconstrained_shape)``. The transforms'
    log-Jacobians belong to the prior, so that ``potential = -(log_prior + log_likelihood)`` is the
    potential energy that HMC moves in.

    Gradients are ``vmap(grad_and_value(potential))`` traced to a plain ATen graph at the first
    call with a given number of chains: no Pyro and no functorch Python runs per step. Where
    tracing fails the untraced ``vmap`` is used; `gradient_path` says which, and why, and
    `gradient_passes` names the passes that rewrote the graph.

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
        self.gradient_passes: tuple[str, ...] = ()
        self.likelihood_temperature = 1.0
        self.posterior_temperature = 1.0
        self._compiled = False
        self._chunk = 0
        self._statistics_rows: int | None = None
        self._autocast: torch.dtype | None = None
        self.transform: Callable[[Tensor], Tensor] | None = None
        self._graphs: dict[tuple[Any, ...], Callable[..., tuple[Tensor, Tensor]]] = {}

        given = Arguments(args, kwargs)
        found = learn(model, given)
        self.sites = found.sites
        self.statistics = found.statistics
        self.dim = sum(site.stop - site.start for site in found.sites.values())
        self.observed = found.observed
        self.rows = found.rows
        self.dtype: torch.dtype = found.dtype
        self.device: torch.device = found.device
        self._some = found.some
        self._subsample_plates = found.subsampling
        self._check_batchable(rows=None if found.some is given else found.some.longest())

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graphs, which another process traces for itself."""
        return {**self.__dict__, "_graphs": {}}

    # Positions

    @property
    def stored(self) -> dict[str, torch.Size]:
        """Name and shape of all that a draw consists of: latent sites, running statistics."""
        sites = {name: site.shape for name, site in self.sites.items()}
        return sites | {name: found.shape for name, found in self.statistics.items()}

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
        generator: torch.Generator | Sequence[torch.Generator],
        *,
        strategy: Callable[..., Any] | None = None,
        attempts: int = 100,
        indices: Rows | None = None,
    ) -> Tensor:
        """Draw starting positions ``(chain, dim)``.

        Chains whose potential energy or gradient is not finite are drawn again.

        Parameters
        ----------
        num_chains : int
            How many.
        generator : torch.Generator or sequence of them
            Source of the seed, or one for each chain, which then starts where it would alone.
        strategy : callable, optional
            One of Pyro's ``init_to_*`` functions; draws from the prior by default.
        attempts : int
            How often a chain may be drawn again.
        indices : Tensor or tuple of Tensor, optional
            Rows on which a start is tried, as for `value_and_grad`; all by default.

        Raises
        ------
        UserError
            If a chain finds no finite start in `attempts` draws; names the site at fault and
            the value that its log density had.
        """
        strategy = strategy or init_to_sample

        def draw(chains: Sequence[int]) -> Tensor:
            if isinstance(generator, torch.Generator):
                return self._starts(len(chains), generator, strategy)
            return torch.cat([self._starts(1, generator[chain], strategy) for chain in chains])

        position = draw(range(num_chains))
        for _ in range(attempts):
            value, gradient = self.value_and_grad(position, indices)
            bad = ~(value.isfinite() & gradient.isfinite().all(dim=1))
            if not bool(bad.any()):
                return position
            position = position.clone()
            position[bad] = draw(bad.nonzero().flatten().tolist())
        raise UserError(self.explain_start(position[bad][0]))

    def explain_start(self, position: Tensor) -> str:
        """Say which site makes the density at one position ``(dim,)`` not finite."""
        values = {name: value[0] for name, value in self.constrain(position[None]).items()}
        for rows in self._chunks() or [None]:
            args, kwargs, _ = self.minibatch(rows)
            with without_validation():
                trace = self.trace_at(values, *args, **kwargs)
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
        batched = self._batched(lambda z, rows, held: self._parts(z, rows, held)[0], self._plain())
        return batched(self._flat(position), first)[0]

    def log_likelihood(
        self,
        position: Tensor | Mapping[str, Tensor],
        indices: Tensor | None = None,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Log likelihood ``(chain,)``; of a minibatch it is the estimate scaled by N / B.

        Running statistics ``(chain, *shape)`` are held at the values that are given; without
        them, they are those of the rows at hand.
        """
        batched = self._batched(lambda z, rows, held: self._parts(z, rows, held)[1], statistics)
        return self._over_chunks(batched, self._flat(position), indices, statistics)[0]

    def potential(
        self,
        position: Tensor | Mapping[str, Tensor],
        indices: Tensor | None = None,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Potential energy ``(chain,)``: minus the tempered log posterior, up to a constant.

        Running statistics are held as for `log_likelihood`.
        """
        batched = self._batched(self._potential, statistics)
        return self._over_chunks(batched, self._flat(position), indices, statistics)[0]

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

    def in_batches(self, rows: int | None) -> LogDensity:
        """Return the same density, whose running statistics are averages over batches of rows.

        Parameters
        ----------
        rows : int, optional
            What a step of training had; one batch of all rows by default.
        """
        if rows == self._statistics_rows or not self.statistics:
            return self
        other = copy.copy(self)
        other._statistics_rows = rows
        return other

    def batches(self) -> tuple[Tensor | None, ...]:
        """Return the numbers of the rows of each batch, in order: all rows, nearly equal parts."""
        if not self.rows:
            return (None,)
        count = max(1, self.rows // (self._statistics_rows or self.rows))
        return torch.arange(self.rows, device=self.device).tensor_split(count)

    def augmented(self, transform: Callable[[Tensor], Tensor] | None) -> LogDensity:
        """Return the same density, whose rows the training of guides changes at random.

        Nothing here applies the transform: full batches and samplers see the rows as they are.

        Parameters
        ----------
        transform : callable, optional
            Takes a row of the model's first argument and returns one of the same shape; its
            random numbers are torch's own, as those of torchvision's transforms are.
        """
        other = copy.copy(self)
        other.transform = transform
        return other

    def in_precision(self, dtype: torch.dtype | None) -> LogDensity:
        """Return the same density with the model run under `torch.autocast`.

        Positions, gradients and what autocast keeps in full precision stay as they are.

        Parameters
        ----------
        dtype : torch.dtype, optional
            ``torch.bfloat16``, ``torch.float16`` on a GPU, or None for full precision.

        Raises
        ------
        UserError
            If the device has no such arithmetic.
        """
        if dtype == torch.float16 and self.device.type == "cpu":
            raise UserError("float16 needs a GPU: take bfloat16, or full precision")
        if dtype == self._autocast:
            return self
        other = copy.copy(self)
        other._autocast = dtype
        other._graphs = {}
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
        other.gradient_path, other.gradient_passes = "not yet traced", ()
        return other

    # The model itself

    def example_values(self) -> dict[str, Tensor]:
        """Return values of all that a draw consists of, no chain axis, at which to try the model.

        Sites are constrained, running statistics those that normalise nothing.
        """
        return example_values(self.sites.values(), self._like) | self._plain(())

    def trace_at(
        self, values: Mapping[str, Tensor], *args: Any, **kwargs: Any
    ) -> poutine.trace_struct.Trace:
        """Run the model once with its latent sites fixed to `values` (without a chain axis).

        Parameters
        ----------
        values : mapping
            Constrained site values, and those at which running statistics are held.
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

        Running statistics are further arguments, after the sites. Composite operators stay whole
        and the data are constants of the graph: this is what symmetry discovery reads.
        ``graph.meta["sites"]`` names the placeholders in order. Where the likelihood is added up
        over chunks, the graph is that of a few rows.
        """
        names = tuple(self.stored)
        data = self._some if self._chunk else Arguments(self.args, self.kwargs)

        def log_likelihood(*values: Tensor) -> Tensor:
            trace = run_model(
                self.model, dict(zip(names, values, strict=True)), data.args, data.kwargs, None
            )
            return sum_log_likelihood(trace, self.sites)

        with without_validation():
            example = list(self.example_values().values())
            graph = trace_graph(log_likelihood, *example, pre_dispatch=True)
        graph.meta["sites"] = names
        return graph

    def row_data(self) -> list[Tensor]:
        """List the model's arguments that have a row for each observation."""
        return Arguments(self.args, self.kwargs).with_rows(self.rows)

    def minibatch(self, indices: Rows | None) -> tuple[tuple[Any, ...], dict[str, Any], float]:
        """Return the model's arguments for a minibatch without a chain axis, and N / B."""
        if indices is None or (self._subsample_plates and isinstance(indices, Tensor)):
            return self.args, self.kwargs, 1.0
        given = None if isinstance(indices, Tensor) else iter(indices)
        size = indices.shape[-1] if isinstance(indices, Tensor) else len(indices[0])
        chosen = Arguments(self.args, self.kwargs).choose(
            self.rows, lambda leaf: leaf[indices] if given is None else next(given)
        )
        return chosen.args, chosen.kwargs, self.rows / size

    # Private

    @property
    def _like(self) -> Tensor:
        return torch.empty(0, dtype=self.dtype, device=self.device)

    def _flat(self, position: Tensor | Mapping[str, Tensor]) -> Tensor:
        return position if isinstance(position, Tensor) else self.flatten(position)

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
                trace = poutine.trace(model).get_trace(*self._some.args, **self._some.kwargs)
                draws.append({name: node["value"] for name, node in latent_nodes(trace)})
        return self.unconstrain({n: torch.stack([draw[n] for draw in draws]) for n in self.sites})

    def _plain(self, leading: tuple[int, ...] = (1,)) -> dict[str, Tensor]:
        """Return running statistics that normalise nothing, ``(*leading, *shape)``."""
        return {
            name: found.plain(self._like).expand(*leading, *found.shape)
            for name, found in self.statistics.items()
        }

    def _parts(
        self, z: Tensor, indices: Rows | None, statistics: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log prior and log likelihood of one chain's flat position ``(dim,)``."""
        pieces = torch.split(z, [site.stop - site.start for site in self.sites.values()])
        values = dict(statistics or {})
        log_det = z.new_zeros(())
        for site, piece in zip(self.sites.values(), pieces, strict=True):
            unconstrained = piece.reshape(site.unconstrained_shape)
            values[site.name] = site.transform(unconstrained)
            if not is_identity(site.transform):
                log_det = (
                    log_det
                    + site.transform.log_abs_det_jacobian(unconstrained, values[site.name]).sum()
                )
        chosen = indices if isinstance(indices, Tensor) else None
        args, kwargs, scale = self.minibatch(indices)
        trace = run_model(self.model, values, args, kwargs, chosen)
        prior = sum((trace.nodes[name]["log_prob_sum"] for name in self.sites), log_det)
        return prior, sum_log_likelihood(trace, self.sites) * scale

    def _potential(
        self, z: Tensor, indices: Rows | None, statistics: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        prior, likelihood = self._parts(z, indices, statistics)
        return -(prior + likelihood / self.likelihood_temperature) / self.posterior_temperature

    def _batched(
        self,
        function: Callable[[Tensor, Rows | None, Mapping[str, Tensor]], Tensor],
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Callable[[Tensor, Rows | None], tuple[Tensor, ...]]:
        held = {name: statistics[name] for name in self.statistics} if statistics else {}

        def evaluate(position: Tensor, indices: Rows | None) -> tuple[Tensor, ...]:
            own = {n: value.expand(len(position), *value.shape[1:]) for n, value in held.items()}
            with batchable():
                return (vmap(lambda z, s: function(z, indices, s))(position, own),)

        return evaluate

    def _gradient(self, position: Tensor, indices: Rows | None) -> tuple[Tensor, ...]:
        # A graph may rely on the strides of what it was compiled for, expanded tensors among them.
        position, rows = position.contiguous(), tuple(t.contiguous() for t in as_tuple(indices))
        given = rows[0] if isinstance(indices, Tensor) else rows or None
        return self._gradient_function(position, given)(position, *rows)

    def _chunks(self) -> tuple[Tensor, ...]:
        """Return the numbers of the rows of each chunk, none without chunks."""
        if not self._chunk:
            return ()
        return tuple(torch.arange(self.rows, device=self.device).split(self._chunk))

    def _over_chunks(
        self,
        function: Callable[[Tensor, Rows | None], tuple[Tensor, ...]],
        position: Tensor,
        indices: Rows | None,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """Add up a function of the rows over chunks of all rows, where these are set.

        A minibatch of B of N rows scales its likelihood by N / B. With the weights B / N the
        likelihoods of the chunks add up to that of all rows, and their priors to one prior.
        """
        if indices is not None or not self._chunk:
            return function(position, indices)
        if self.statistics and not statistics:
            raise UserError(
                f"'{next(iter(self.statistics))}' is a statistic of all rows at once, which a sum "
                "over chunks of them has not: leave run.chunk_rows out, or call .eval() on the "
                "network"
            )
        totals: list[Tensor] = []
        for rows in self._chunks():
            weight = len(rows) / self.rows
            parts = [weight * part for part in function(position, rows)]
            totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
        return tuple(totals)

    def _gradient_function(
        self, position: Tensor, indices: Rows | None
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        shapes = tuple(tensor.shape for tensor in as_tuple(indices))
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

        inputs = (position, *as_tuple(indices))
        shared = isinstance(indices, Tensor) and indices.ndim == 1
        in_dims = (0, *(None if shared else 0 for _ in inputs[1:]))
        plain: Callable[..., Any] = vmap(grad_and_value(potential), in_dims=in_dims)

        def swapped(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            with batchable(), self.arithmetic():
                gradient, value = plain(*tensors)
            return value, gradient

        found = trace_gradient(swapped, *inputs, compiled=self._compiled)
        self.gradient_path, self.gradient_passes = found.path, found.passes
        return found.function

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context in which the model runs: `torch.autocast`, or none."""
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._autocast, cache_enabled=False)

    def _check_batchable(self, rows: int | None) -> None:
        position = self.unconstrain({k: v[None] for k, v in self.example_values().items()})
        position = position.expand(2, -1)
        few = None if rows is None else torch.arange(rows, device=self.device)
        try:
            first, second = (self._batched(self._potential)(position, few)[0] for _ in range(2))
        except RuntimeError as error:
            raise UserError(why_not_batched(str(error))) from error
        if not torch.equal(first.nan_to_num(), second.nan_to_num()):
            raise UserError(
                "the model draws random numbers outside of pyro.sample: its log density changes "
                "from one call to the next; make the draw a latent site or fix it before the model"
            )


def _cuda_index(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
