"""Plain Pyro results as a trace: the converter that ArviZ 1.x no longer has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.trace.pyro_draws import guide_draws, observations, pointwise_log_likelihood
from pyro_bnn.trace.schema import encode_attrs, site_dataset, to_numpy

Draws = Mapping[str, Tensor | ArrayLike]
Dims = Mapping[str, Sequence[str]]

_DEFAULT_GUIDE_DRAWS = 1000


def from_pyro(
    source: Any = None,
    *,
    dims: Dims | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    observed_data: Draws | None = None,
    constant_data: Draws | None = None,
    model: Callable[..., Any] | None = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    num_samples: int | None = None,
    num_chains: int | None = None,
    prior: Draws | None = None,
    posterior_predictive: Draws | None = None,
    predictions: Draws | None = None,
    predictions_constant_data: Draws | None = None,
    pred_dims: Dims | None = None,
    log_likelihood: bool | Draws | None = None,
) -> xr.DataTree:
    """Convert what Pyro inferred into a trace that every ArviZ function reads.

    Parameters
    ----------
    source
        The posterior, one of

        - ``pyro.infer.MCMC`` after ``run``, or any object with its
          ``get_samples(group_by_chain=True)``. Its model, arguments and divergences are found;
        - a dict of draws: ``(chain, draw, *shape)`` as of ``get_samples(group_by_chain=True)``, or
          with one leading axis as of ``Predictive`` (see `num_chains`);
        - a guide (an autoguide, or any function that samples the latent sites), of which
          `num_samples` draws are taken by calling it with `model_args` and `model_kwargs`.

        Without it only the other groups are converted.
    dims
        Site name to the names of its axes, the sample axes left out; used for all groups but
        those of predictions. Observations and their log likelihoods share theirs.
    coords
        Dimension name to its values.
    observed_data, constant_data, predictions_constant_data
        Name to value, without sample axes. The observations are found if the model is known.
    model
        The Pyro model, needed for `log_likelihood` where `source` does not know it.
    model_args, model_kwargs
        What the model is called with, the observations among it.
    num_samples
        Draws to take of a guide, by default 1,000.
    num_chains
        Set where dicts of draws have one leading axis, which is then cut into so many chains. By
        default a posterior whose sites agree in their first two axes is ``(chain, draw)``, any
        other is one chain.
    prior
        Draws of ``Predictive(model, num_samples=...)``: one leading axis. Sites that the posterior
        does not have (or that are observed) go to ``prior_predictive``.
    posterior_predictive, predictions
        Draws of ``Predictive(model, posterior_samples)`` for the data that were seen and for new
        inputs: one leading axis of all the posterior's draws, chain after chain, or
        ``(chain, draw)`` as it. Another number of draws becomes one chain.
    pred_dims
        As `dims`, for `predictions` and `predictions_constant_data`.
    log_likelihood
        Pointwise log likelihood per observed site, if already known, or whether to compute it: by
        default where the model and its observations are known.

    Returns
    -------
    xr.DataTree
        Groups ``posterior``, ``sample_stats`` (``diverging``), ``log_likelihood``,
        ``posterior_predictive``, ``predictions``, ``prior``, ``prior_predictive``,
        ``observed_data``, ``constant_data``, ``predictions_constant_data``: those that there are.

    Raises
    ------
    UserError
        If `source` is none of these, its shapes can be read in two ways, or the log likelihood is
        asked for and cannot be computed.

    Examples
    --------
    >>> import torch
    >>> trace = from_pyro({"w": torch.randn(4, 100, 3)}, dims={"w": ["feature"]})
    >>> dict(trace["posterior"].sizes)
    {'chain': 4, 'draw': 100, 'feature': 3}
    """
    program = _Program.of(source, model, model_args, model_kwargs)
    posterior = _posterior(source, num_samples, num_chains, program)
    if isinstance(source, Mapping):
        posterior = _without_plate_axes(posterior, {}, dims)
    observed = dict(observed_data or {})
    if not observed and program.runnable:
        observed = dict(program.observations())

    groups: dict[str, xr.Dataset] = {}
    sample_shape = None
    if posterior:
        groups["posterior"] = site_dataset(posterior, _for(dims, posterior))
        sizes = groups["posterior"].sizes
        sample_shape = (sizes["chain"], sizes["draw"])
        if stats := _sample_stats(source, sample_shape):
            groups["sample_stats"] = site_dataset(stats)
        likelihood = _log_likelihood(log_likelihood, posterior, program)
        if likelihood:
            values = {n: _by_chain(v, sample_shape, num_chains) for n, v in likelihood.items()}
            groups["log_likelihood"] = site_dataset(values, _event_free(dims, values))
    for name, draws, names in (
        ("posterior_predictive", posterior_predictive, dims),
        ("predictions", predictions, pred_dims),
    ):
        if draws:
            values = {n: _by_chain(v, sample_shape, num_chains) for n, v in draws.items()}
            values = _without_plate_axes(values, posterior, names)
            groups[name] = site_dataset(values, _for(names, values))
    if prior:
        values = {n: _by_chain(v, None, num_chains) for n, v in prior.items()}
        values = _without_plate_axes(values, posterior, dims)
        inner = {n for n in values if n in posterior} if posterior else values.keys() - observed
        for name, chosen in (("prior", inner), ("prior_predictive", values.keys() - inner)):
            part = {n: v for n, v in values.items() if n in chosen}
            if part:
                groups[name] = site_dataset(part, _for(dims, part))
    for name, data, names in (
        ("observed_data", observed, dims),
        ("constant_data", constant_data, dims),
        ("predictions_constant_data", predictions_constant_data, pred_dims),
    ):
        if data:
            groups[name] = _data_group(data, names)
    if not groups:
        raise UserError("Nothing to convert: give from_pyro a posterior, a prior or predictions.")
    return _tree(groups, coords or {})


class _Program:
    """The model with its arguments, as far as they are known."""

    def __init__(
        self, model: Callable[..., Any] | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.model, self.args, self.kwargs = model, args, kwargs

    @classmethod
    def of(
        cls,
        source: Any,
        model: Callable[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
    ) -> _Program:
        if model is not None:
            return cls(model, args, kwargs or {})
        if hasattr(source, "get_samples"):
            found = getattr(getattr(source, "kernel", None), "model", None)
            if args or kwargs:
                return cls(found, args, kwargs or {})
            # Pyro keeps the arguments of run() under private names only.
            known = getattr(source, "_args", None)
            return cls(
                found if known is not None else None,
                known or (),
                getattr(source, "_kwargs", None) or {},
            )
        if args or kwargs:
            return cls(getattr(source, "model", None), args, kwargs or {})
        return cls(None, args, {})

    @property
    def runnable(self) -> bool:
        return self.model is not None

    def observations(self) -> dict[str, Tensor]:
        assert self.model is not None
        return observations(self.model, self.args, self.kwargs)


def _posterior(
    source: Any, num_samples: int | None, num_chains: int | None, program: _Program
) -> dict[str, NDArray[Any]]:
    """Draws of the latent sites, ``(chain, draw, *shape)`` each."""
    if source is None:
        return {}
    if hasattr(source, "get_samples"):
        samples = source.get_samples(group_by_chain=True)
        return {name: to_numpy(values) for name, values in samples.items()}
    if isinstance(source, Mapping):
        return _grouped({n: to_numpy(v) for n, v in source.items()}, num_chains)
    if callable(source):
        count = _DEFAULT_GUIDE_DRAWS if num_samples is None else num_samples
        draws = guide_draws(source, count, program.args, program.kwargs)
        return {name: to_numpy(values)[None] for name, values in draws.items()}
    raise UserError(
        f"from_pyro cannot read a {type(source).__name__}: give an MCMC object after run(), a dict "
        "of draws, or a guide."
    )


def _grouped(samples: dict[str, NDArray[Any]], num_chains: int | None) -> dict[str, NDArray[Any]]:
    if num_chains is not None:
        return {name: _by_chain(values, None, num_chains) for name, values in samples.items()}
    leading = {values.shape[:2] for values in samples.values()}
    if len(leading) != 1 or len(next(iter(leading))) < 2:
        return {name: values[None] for name, values in samples.items()}
    chains, draws = leading.pop()
    if chains > draws:
        raise UserError(
            f"The draws of site '{next(iter(samples))}' start with the axes ({chains}, {draws}): "
            "more chains than draws, or one axis of draws; give num_chains to say that it is one."
        )
    return samples


def _by_chain(
    values: Tensor | ArrayLike, sample_shape: tuple[int, int] | None, num_chains: int | None
) -> NDArray[Any]:
    """Cut one leading axis of draws into the posterior's chains, or into `num_chains`."""
    array = to_numpy(values)
    if sample_shape is not None and array.shape[:1] == (sample_shape[0] * sample_shape[1],):
        return array.reshape(*sample_shape, *array.shape[1:])
    if sample_shape is not None and array.shape[:2] == sample_shape:
        return array
    chains = num_chains if sample_shape is None and num_chains is not None else 1
    if array.ndim == 0 or array.shape[0] % chains:
        raise UserError(
            f"Draws of shape {array.shape} cannot be cut into {chains} chains of equal length: "
            "give another num_chains."
        )
    return array.reshape(chains, array.shape[0] // chains, *array.shape[1:])


def _without_plate_axes(
    values: Mapping[str, NDArray[Any]], posterior: Mapping[str, NDArray[Any]], dims: Dims | None
) -> dict[str, NDArray[Any]]:
    """Drop the axes of size 1 that ``Predictive`` puts in the place of a site's missing plates.

    As many stay as the site has in the posterior, or names in `dims`; without either, all do.
    """
    result = {}
    for name, array in values.items():
        if name in posterior:
            wanted = posterior[name].ndim
        elif dims is not None and name in dims:
            wanted = 2 + len(dims[name])
        else:
            wanted = array.ndim
        while array.ndim > wanted and array.shape[2] == 1:
            array = array.squeeze(2)
        result[name] = array
    return result


def _sample_stats(source: Any, sample_shape: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Per-draw statistics that Pyro keeps: the indices of divergent draws of each chain."""
    if not hasattr(source, "diagnostics"):
        return {}
    divergences = source.diagnostics().get("divergences")
    if not isinstance(divergences, Mapping):
        return {}
    diverging = np.zeros(sample_shape, dtype=bool)
    for name, indices in divergences.items():
        # "chain 10": the number counts, not the order of the strings.
        diverging[int(name.rsplit(" ", 1)[-1]), list(indices)] = True
    return {"diverging": diverging}


def _log_likelihood(
    wanted: bool | Draws | None,
    posterior: Mapping[str, NDArray[Any]],
    program: _Program,
) -> Draws:
    if isinstance(wanted, Mapping):
        return wanted
    if wanted is False:
        return {}
    if program.model is not None and program.observations():
        flat = {n: torch.as_tensor(v.reshape(-1, *v.shape[2:])) for n, v in posterior.items()}
        return pointwise_log_likelihood(program.model, flat, program.args, program.kwargs)
    if wanted:
        raise UserError(
            "The log likelihood needs the model and its observations: give model= and model_args= "
            "with the observed values among them."
        )
    return {}


def _data_group(data: Draws, dims: Dims | None) -> xr.Dataset:
    variables = {}
    for name, value in data.items():
        array = to_numpy(value)
        names = (dims or {}).get(name) or [f"{name}_dim_{axis}" for axis in range(array.ndim)]
        variables[name] = (tuple(names), array)
    return xr.Dataset(variables)


def _for(dims: Dims | None, sites: Mapping[str, Any]) -> Dims:
    return {name: names for name, names in (dims or {}).items() if name in sites}


def _event_free(dims: Dims | None, values: Mapping[str, NDArray[Any]]) -> Dims:
    """Names of the axes of pointwise values: those of the site but for its event axes."""
    return {n: list(names)[: values[n].ndim - 2] for n, names in _for(dims, values).items()}


def _tree(groups: Mapping[str, xr.Dataset], coords: Mapping[str, ArrayLike]) -> xr.DataTree:
    attrs = encode_attrs(
        {
            "created_at": datetime.now(UTC).isoformat(),
            "inference_library": "pyro",
            "inference_library_version": pyro.__version__,
        }
    )
    named = {
        name: data.assign_coords({d: np.asarray(v) for d, v in coords.items() if d in data.dims})
        for name, data in groups.items()
    }
    tree = xr.DataTree.from_dict({name: data.assign_attrs(attrs) for name, data in named.items()})
    tree.attrs.update(attrs)
    return tree
