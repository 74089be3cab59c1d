"""A Pyro model as a pure, batched function of its latent sites."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from pyro.infer.autoguide.initialization import init_to_sample
from torch import Tensor
from torch.func import grad_and_value, vmap

from pyro_bnn.errors import UserError
from pyro_bnn.gradient import trace_gradient
from pyro_bnn.handlers import batchable, run_model, sum_log_likelihood
from pyro_bnn.prototype import why_not_batched
from pyro_bnn.pyro_model import PyroModel
from pyro_bnn.rows import Arguments, Rows, as_tuple
from pyro_bnn.sites import Site, is_identity
from pyro_bnn.starts import draw_starts

__all__ = ["WORTH_COMPILING", "LogDensity", "Rows", "Site"]

# Chain-gradients from which on a run earns back the time of a compilation that starts from cold,
# by the figures of benchmarks/gradient_vs_jax.py.
WORTH_COMPILING = 200_000

Position = TypeVar("Position", Tensor, Mapping[str, Tensor])


class LogDensity(PyroModel):
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
        numbers outside of ``pyro.sample``, branches on the value of a latent site or has a site
        whose support depends on another.

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
        super().__init__(model, *args, **kwargs)
        self.gradient_path = "not yet traced"
        self.gradient_passes: tuple[str, ...] = ()
        self.likelihood_temperature = 1.0
        self.posterior_temperature = 1.0
        self._compiled = False
        self._autocast: torch.dtype | None = None
        self._graphs: dict[tuple[Any, ...], Callable[..., tuple[Tensor, Tensor]]] = {}
        self._check_batchable()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graphs, which another process traces for itself."""
        return {**self.__dict__, "_graphs": {}}

    # Starting positions

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
                return draw_starts(self, len(chains), generator, strategy)
            return torch.cat([draw_starts(self, 1, generator[c], strategy) for c in chains])

        position = draw(range(num_chains))
        for _ in range(attempts + 1):
            value, gradient = self.value_and_grad(position, indices)
            bad = ~(value.isfinite() & gradient.isfinite().all(dim=1))
            if not bool(bad.any()):
                return position
            tried, position = position, position.clone()
            position[bad] = draw(bad.nonzero().flatten().tolist())
        raise UserError(self.explain_start(tried[bad][0]))

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

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context in which the model runs: `torch.autocast`, or none."""
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._autocast, cache_enabled=False)

    # Private

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
        return prior, sum_log_likelihood(trace, self.sites, self.of_rows, scale)

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
        for rows in self.chunks():
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

    def _check_batchable(self) -> None:
        position = self.unconstrain({k: v[None] for k, v in self.example_values().items()})
        position = position.expand(2, -1)
        count = self.some.longest()
        all_rows = count == Arguments(self.args, self.kwargs).longest()
        few = None if all_rows else torch.arange(count, device=self.device)
        try:
            first, second = (self._batched(self._potential)(position, few)[0] for _ in range(2))
        except RuntimeError as error:
            raise UserError(why_not_batched(str(error))) from error
        if not torch.equal(first.nan_to_num(), second.nan_to_num()):
            raise UserError(
                "the model draws random numbers outside of pyro.sample: its log density changes "
                "from one call to the next; make the draw a latent site or fix it before the model"
            )
        self._refuse_moving_supports()
