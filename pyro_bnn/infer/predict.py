"""What a batch of draws says of each datum: densities, means and distribution functions."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.func import vmap

from pyro_bnn.errors import UserError
from pyro_bnn.halving import INPUTS_AT_ONCE, Halving, ran_out_of_memory
from pyro_bnn.handlers import base_distribution, batchable
from pyro_bnn.logdensity import LogDensity

__all__ = ["Predictions", "likelihood_kind", "predict", "predict_in_chunks"]


class Predictions(NamedTuple):
    """The predictive distribution of each datum under each draw.

    Attributes
    ----------
    log_predictive : Tensor
        log p(y_i | x_i, theta), ``(draw, data)``.
    mean : Tensor
        Class probabilities ``(draw, data, class)``, the probability of a one, or the mean of a
        continuous likelihood, both ``(draw, data)``.
    cdf : Tensor or None
        P(Y <= y_i | x_i, theta), ``(draw, data)``, of continuous likelihoods that have it.
    sd : Tensor or None
        Standard deviation of a normal likelihood, ``(draw, data)``.
    """

    log_predictive: Tensor
    mean: Tensor
    cdf: Tensor | None = None
    sd: Tensor | None = None


def likelihood_kind(density: LogDensity, x: Tensor, y: Tensor) -> str:
    """Return ``"categorical"``, ``"bernoulli"`` or ``"continuous"``.

    Raises
    ------
    UserError
        If the model observes nothing, cannot be run on these data, samples weights anew for each
        row, or its likelihood does not factorise over the data.
    """
    values = {name: torch.zeros(site.unconstrained_shape) for name, site in density.sites.items()}
    position = density.flatten({name: v[None].to(density.device) for name, v in values.items()})
    point = {n: v[0] for n, v in density.constrain(position.to(density.dtype)).items()}
    point = density.example_values() | point
    rows = Halving(_rows_at_once(x), "predictions", "rows")
    nodes = rows.run(lambda some: _judged(density, point, x[some], y[some]), len(x))
    node = next(nodes)
    for _ in nodes:
        pass  # the others, whose values may be what is wrong
    _refuse_unpredictable(density, point, node, x, y)
    base = base_distribution(node["fn"])
    if isinstance(base, dist.Categorical):
        return "categorical"
    return "bernoulli" if isinstance(base, dist.Bernoulli) else "continuous"


def predict(density: LogDensity, values: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Predictions:
    """Evaluate the predictive distribution of held-out data for a batch of draws.

    Parameters
    ----------
    density : LogDensity
        Of the model ``model(x, y)``.
    values : mapping
        Constrained site values ``(draw, *shape)``, and the running statistics of the draws.
    x, y : Tensor
        Inputs and targets ``(data, ...)``.

    Raises
    ------
    UserError
        If the model has running statistics and the draws have not.
    """
    names = tuple(density.stored)
    for name in density.statistics:
        if name not in values:
            raise UserError(
                f"the draws lack '{name}', without which the network is not known: take it from "
                "the trace beside the weights, or import checkpoints that hold it"
            )

    def one(*point: Tensor) -> dict[str, Tensor]:
        trace = density.trace_at(dict(zip(names, point, strict=True)), x, y)
        node = _observed(density, trace)
        base = base_distribution(node["fn"])
        discrete = isinstance(base, dist.Categorical | dist.Bernoulli)
        mean = base.probs if discrete else _mean(node["fn"])
        found = {"log_predictive": node["log_prob"], "mean": mean}
        if not discrete and base.event_shape == () and y.ndim == 1:
            with contextlib.suppress(NotImplementedError):
                found["cdf"] = base.cdf(y)
            if isinstance(base, dist.Normal):
                found["sd"] = base.stddev
        return found

    with batchable(), torch.no_grad():
        return Predictions(**vmap(one)(*(values[name] for name in names)))


def predict_in_chunks(
    density: LogDensity, values: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> Predictions:
    """Do what `predict` does, a chunk of draws and rows at a time.

    Activations of a row are taken to be 64 times as many as its input's numbers; a chunk is so
    many draws and rows that they weigh 256 MiB in single precision. Where that is too much, draws
    are halved, then rows.

    Parameters
    ----------
    density : LogDensity
        Of the model ``model(x, y)``.
    values : mapping
        Constrained site values ``(draw, *shape)``, one draw at least.
    x, y : Tensor
        Inputs and targets ``(data, ...)``.
    """
    pairs = _rows_at_once(x)
    rows = Halving(min(len(x), pairs), "predictions", "rows")
    draws = Halving(max(1, pairs // rows.size), "predictions", "draws")
    count = len(next(iter(values.values())))

    def of_rows(some: slice) -> Predictions:
        def of_draws(block: slice) -> Predictions:
            chosen = {name: tensor[block] for name, tensor in values.items()}
            return predict(density, chosen, x[some], y[some])

        return _joined(list(draws.run(of_draws, count)), 0)

    return _joined(list(rows.run(of_rows, len(x))), 1)


def _rows_at_once(x: Tensor) -> int:
    """Return how many rows one network takes at a time."""
    return max(1, INPUTS_AT_ONCE // max(1, x[0].numel()))


def _joined(parts: Sequence[Predictions], axis: int) -> Predictions:
    """Concatenate; a field is missing from all or from none."""
    fields = zip(*parts, strict=True)
    return Predictions(*(None if f[0] is None else torch.cat(f, axis) for f in fields))  # type: ignore[arg-type]


def _judged(
    density: LogDensity, point: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> Mapping[str, Any]:
    """Return the observed site of some rows; refuse one that has not a term for each of them."""
    try:
        with torch.no_grad():
            trace = density.trace_at(point, x, y)
    except UserError:
        raise
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"the model runs on the training data but not on the test data, of shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)} ({type(error).__name__}: {reason[0]}); "
            "where it is about sizes, sample weights before the plate over the rows, and give "
            "that the size x.shape[0]"
        ) from error
    node = _observed(density, trace)
    _refuse_weights_of_rows(density, trace, node, len(y))
    if node["log_prob"].shape != y.shape[:1]:
        raise UserError(
            f"site '{node['name']}' has a log probability of shape "
            f"{tuple(node['log_prob'].shape)}, not one a row ({len(y)}): observe it inside of "
            "pyro.plate('data', x.shape[0]), with .to_event(1) if a row has several values"
        )
    return node


def _observed(density: LogDensity, trace: poutine.trace_struct.Trace) -> Mapping[str, Any]:
    if not density.observed:
        raise UserError("the model observes nothing: pass obs=y to the likelihood's pyro.sample")
    node: Mapping[str, Any] = trace.nodes[density.observed[-1]]
    return node


def _refuse_unpredictable(
    density: LogDensity, point: Mapping[str, Tensor], node: Mapping[str, Any], x: Tensor, y: Tensor
) -> None:
    """Predict a few rows: better now than after hours of sampling."""
    one = {name: value[None] for name, value in point.items()}
    law = type(base_distribution(node["fn"])).__name__
    try:
        predict(density, one, x[:8], y[:8])
    except NotImplementedError as error:
        raise UserError(
            f"site '{node['name']}' is predicted by the mean of its {law}, which has none: give "
            "the distribution a property mean"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"site '{node['name']}' cannot be predicted for many draws at once, by the mean of its "
            f"{law}: {str(error).strip().splitlines()[0]}"
        ) from error


def _mean(law: Any) -> Tensor:
    base = base_distribution(law)
    if isinstance(base, dist.StudentT):
        # Its own property writes by a mask, which vmap cannot where the mask depends on a draw.
        return torch.where(base.df > 1, base.loc, torch.nan)
    mean: Tensor = law.mean
    return mean


def _refuse_weights_of_rows(
    density: LogDensity, trace: poutine.trace_struct.Trace, observed: Mapping[str, Any], rows: int
) -> None:
    """Refuse latent sites in the plate of the rows: rows held out have none of their own."""
    plates = {frame.name for frame in observed["cond_indep_stack"] if frame.size == rows}
    for name in density.sites:
        shared = [f.name for f in trace.nodes[name]["cond_indep_stack"] if f.name in plates]
        if shared:
            raise UserError(
                f"site '{name}' is sampled inside of the plate '{shared[0]}', once for each row, "
                "so that rows held out have none: sample it before the plate"
            )
