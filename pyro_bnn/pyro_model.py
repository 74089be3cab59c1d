"""A Pyro model that has been run once: its sites, its positions and its data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.fx import GraphModule

from pyro_bnn.errors import UserError
from pyro_bnn.graph import trace_graph
from pyro_bnn.handlers import run_model, sum_log_likelihood, without_validation
from pyro_bnn.prototype import learn
from pyro_bnn.rows import Arguments, Rows
from pyro_bnn.sites import example_values, is_identity

__all__ = ["PyroModel"]


class PyroModel:
    """A Pyro model, what one run of it told, and the data that it is called with.

    Parameters
    ----------
    model : callable
        A Pyro model with continuous latent sites.
    *args, **kwargs
        What the model is called with: the observed data.

    Attributes
    ----------
    sites : dict of str to Site
        Latent sites, in the order of the model.
    statistics : dict of str to Statistic
        Running statistics that it declares.
    dim : int
        Length of a flat position.
    observed : tuple of str
        Observed sites: factors, then those that observe a value.
    rows : int
        Rows of data that are observed, zero where what is observed has none.
    of_rows : frozenset of str
        Observed sites and factors with a term for each of these rows.
    some : Arguments
        What the model was run on: its data, a few of their rows where they have many.
    dtype, device
        Of the first latent site.
    transform : callable or None
        What `augmented` was given.

    Raises
    ------
    UserError
        If the model fails on its data, or has discrete latent sites or none at all.
    """

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.transform: Callable[[Tensor], Tensor] | None = None
        self._chunk = 0
        self._statistics_rows: int | None = None

        found = learn(model, Arguments(args, kwargs))
        self.sites = found.sites
        self.statistics = found.statistics
        self.dim = sum(site.stop - site.start for site in found.sites.values())
        self.observed = found.observed
        self.rows = found.rows
        self.of_rows = found.of_rows
        self.some = found.some
        self.dtype: torch.dtype = found.dtype
        self.device: torch.device = found.device
        self._subsample_plates = found.subsampling

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

    # Its data

    def row_data(self) -> list[Tensor]:
        """List the model's arguments that have a row for each observation."""
        return Arguments(self.args, self.kwargs).with_rows(self.rows)

    def minibatch(self, indices: Rows | None) -> tuple[tuple[Any, ...], dict[str, Any], float]:
        """Return the model's arguments for a minibatch without a chain axis, and N / B.

        Raises
        ------
        UserError
            If the model is called with no data of which rows could be taken.
        """
        if indices is None or (self._subsample_plates and isinstance(indices, Tensor)):
            return self.args, self.kwargs, 1.0
        given = None if isinstance(indices, Tensor) else iter(indices)
        size = indices.shape[-1] if isinstance(indices, Tensor) else len(indices[0])
        if size != self.rows and not self.row_data():
            raise UserError(
                f"the model observes {self.rows} rows, but none of its arguments has as many, so "
                "that no minibatch or chunk of them can be taken: call it with its data, "
                "model(x, y), rows first"
            )
        chosen = Arguments(self.args, self.kwargs).choose(
            self.rows, lambda leaf: leaf[indices] if given is None else next(given)
        )
        return chosen.args, chosen.kwargs, self.rows / size

    def chunked(self, rows: int) -> Self:
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

    def chunks(self) -> tuple[Tensor, ...]:
        """Return the numbers of the rows of each chunk, none without chunks."""
        if not self._chunk:
            return ()
        return tuple(torch.arange(self.rows, device=self.device).split(self._chunk))

    def in_batches(self, rows: int | None) -> Self:
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

    def augmented(self, transform: Callable[[Tensor], Tensor] | None) -> Self:
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
            Pyro's trace, with the log probability of each site computed; nothing is validated.
        """
        if not args and not kwargs:
            args, kwargs = self.args, self.kwargs
        with without_validation():
            return run_model(self.model, values, args, kwargs, None)

    def explain_start(self, position: Tensor) -> str:
        """Say which site makes the density at one position ``(dim,)`` not finite."""
        values = {name: value[0] for name, value in self.constrain(position[None]).items()}
        for rows in self.chunks() or [None]:
            args, kwargs, _ = self.minibatch(rows)
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

    def likelihood_graph(self) -> GraphModule:
        """Trace the log likelihood, for one draw, as a function of the constrained sites.

        Running statistics are further arguments, after the sites. Composite operators stay whole
        and the data are constants of the graph: this is what symmetry discovery reads.
        ``graph.meta["sites"]`` names the placeholders in order. Where the likelihood is added up
        over chunks, the graph is that of a few rows.
        """
        names = tuple(self.stored)
        data = self.some if self._chunk else Arguments(self.args, self.kwargs)

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

    # Private

    def _refuse_moving_supports(self) -> None:
        """Refuse sites whose support depends on other sites: a transform is that of one draw."""
        bounded = [site for site in self.sites.values() if not is_identity(site.transform)]
        if not bounded:
            return
        values = self.example_values()
        with without_validation(), torch.no_grad():
            trace = run_model(self.model, values, self.some.args, self.some.kwargs, None)
        for site in bounded:
            law: Any = trace.nodes[site.name]["fn"]
            there = replace(site, transform=biject_to(law.support))
            if not torch.equal(example_values([there], self._like)[site.name], values[site.name]):
                raise UserError(
                    f"the support of site '{site.name}' depends on the value of another latent "
                    "site, but is held at that of one draw: sample it on a fixed support and move "
                    f"it, as in a * pyro.sample('{site.name}', dist.Uniform(0.0, 1.0))"
                )

    @property
    def _like(self) -> Tensor:
        return torch.empty(0, dtype=self.dtype, device=self.device)

    def _flat(self, position: Tensor | Mapping[str, Tensor]) -> Tensor:
        return position if isinstance(position, Tensor) else self.flatten(position)

    def _plain(self, leading: tuple[int, ...] = (1,)) -> dict[str, Tensor]:
        """Return running statistics that normalise nothing, ``(*leading, *shape)``."""
        return {
            name: found.plain(self._like).expand(*leading, *found.shape)
            for name, found in self.statistics.items()
        }
