"""Posterior precisions of one network at its mode, by laplace-torch, as plain tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_bnn.errors import UserError
from pyro_bnn.halving import INPUTS_AT_ONCE
from pyro_bnn.infer.guides.network import Network
from pyro_bnn.logdensity import LogDensity

__all__ = [
    "dense_root",
    "diagonal_deviation",
    "fit",
    "hessian_root",
    "kronecker_factors",
    "linearised",
    "log_prob_dense",
    "maximise_marginal_likelihood",
    "prior_precision",
    "refuse_layers_without_factors",
    "subnetwork_root",
]

_BATCH = 256
_ROUNDS = 10
_GAIN = 0.01  # nats
_FACTORED = (nn.Linear, nn.Conv2d)


def prior_precision(density: LogDensity, position: Tensor) -> Tensor:
    """Curvature ``(dim,)`` of minus the log prior at a position ``(dim,)``, weight by weight.

    Raises
    ------
    UserError
        If the prior makes weights depend on each other.
    """
    diagonal, independent = _prior_curvature(density, position)
    if not independent:
        raise UserError(
            "the model's prior makes weights depend on each other, which only structure='hessian' "
            "takes into account: take that, or give Laplace(prior=...) a precision"
        )
    return diagonal


def _prior_curvature(density: LogDensity, position: Tensor) -> tuple[Tensor, bool]:
    """Sum over each row of the Hessian of minus the log prior, and whether it is the diagonal.

    It is if the sums with other signs have these signs and the same size.
    """
    point = position.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(-density.log_prior(point[None]).sum(), point, create_graph=True)
    signs = torch.arange(len(point), device=point.device).to(point.dtype).mul(2.4).cos().sign()
    sums, signed = (
        torch.autograd.grad((slope * factor).sum(), point, retain_graph=True)[0]
        for factor in (torch.ones_like(signs), signs)
    )
    size = float(sums.abs().max())
    return sums, torch.allclose(signed, signs * sums, rtol=1e-3, atol=1e-5 * size)


def refuse_layers_without_factors(module: nn.Module) -> None:
    """Refuse a layer whose curvature is no Kronecker product, such as batch norm.

    Raises
    ------
    UserError
        If a parameter that has a posterior belongs to such a layer.
    """
    for name, layer in module.named_modules():
        own = [n for n, p in layer.named_parameters(recurse=False) if p.requires_grad]
        if own and not isinstance(layer, _FACTORED):
            raise UserError(
                f"layer '{name}' ({type(layer).__name__}) has no Kronecker factors, as nn.Linear "
                "and nn.Conv2d have: take Laplace(structure='diag') or 'last-layer', or give "
                f"{' and '.join(own)} to freeze= of lift()"
            )
        fixed = [n for n, p in layer.named_parameters(recurse=False) if not p.requires_grad]
        if own and fixed:
            raise UserError(
                f"layer '{name}' has a posterior of its {own[0]} and a fixed {fixed[0]}, which its "
                "Kronecker factors cannot tell apart: take Laplace(structure='diag') or "
                "'last-layer', or give both to freeze= of lift(), or neither"
            )


def fit(
    network: Network, density: LogDensity, structure: str, precision: Tensor, indices: Any = None
) -> Any:
    """Fit laplace-torch to the network as it is.

    Parameters
    ----------
    network : Network
        With the weights of the mode in place.
    density : LogDensity
        Says the temperature of the likelihood.
    structure : str
        ``"diag"``, ``"kron"`` or ``"full"``.
    precision : Tensor
        Of the prior: of each weight in the module's order, or of each of its parameters.
    indices : Tensor, optional
        Weights of a subnetwork.
    """
    try:
        with _deprecations_of_torch():
            from laplace import Laplace
    except ImportError as error:
        raise UserError(
            "Laplace needs laplace-torch for this structure: pip install 'pyro-bnn[laplace]', or "
            "take structure='hessian'"
        ) from error
    y = network.y
    y = y.reshape(len(y), -1) if network.likelihood == "regression" else y.long()
    loader = DataLoader(TensorDataset(network.x, y), batch_size=_BATCH)
    options: dict[str, Any] = {} if indices is None else {"subnetwork_indices": indices}
    if network.likelihood == "regression":
        options["sigma_noise"] = network.noise
    found = Laplace(
        network.module,
        network.likelihood,
        subset_of_weights="all" if indices is None else "subnetwork",
        hessian_structure=structure,
        prior_precision=precision,
        temperature=density.likelihood_temperature,
        **options,
    )
    with _deprecations_of_torch():
        found.fit(loader)
    return found


def maximise_marginal_likelihood(fitted: Any) -> None:
    """Set the prior precision of each parameter tensor to the best one, by laplace-torch.

    Its hundred steps start from the precision that is there, as often as they gain something.
    """
    evidence = float(fitted.log_marginal_likelihood())
    for _ in range(_ROUNDS):
        with _deprecations_of_torch():
            # Warns of how it would predict with a linearised network, which nothing here does.
            warnings.simplefilter("ignore", UserWarning)
            start = fitted.prior_precision.detach().clone()
            fitted.optimize_prior_precision(method="marglik", init_prior_prec=start)
        before, evidence = evidence, float(fitted.log_marginal_likelihood())
        if evidence - before < _GAIN:
            return


@contextmanager
def _deprecations_of_torch() -> Iterator[None]:
    """Keep quiet about parts of torch that laplace-torch and its backends still use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def dense_root(fitted: Any) -> Tensor:
    """Return R of a covariance ``R R'`` of all weights, or those of the subnetwork."""
    root: Tensor = fitted.posterior_scale.detach()
    return root


def subnetwork_root(
    network: Network, density: LogDensity, precision: Tensor, chosen: Tensor
) -> Tensor:
    """Return R of the covariance ``R R'`` of the weights `chosen`, the others held fixed.

    `precision` is that of the prior of all weights; laplace-torch takes one number for all of a
    subnetwork, so that one is exchanged for it here.
    """
    fitted = fit(network, density, "full", precision.new_ones(()), chosen.cpu())
    curvature = fitted.posterior_precision.detach().clone()
    curvature.diagonal().add_(precision[chosen] - 1)
    values, vectors = torch.linalg.eigh(curvature)
    root: Tensor = vectors / values.sqrt()
    return root


def diagonal_deviation(fitted: Any) -> Tensor:
    """Return the standard deviation of each weight."""
    deviation: Tensor = fitted.posterior_scale.detach()
    return deviation


def kronecker_factors(fitted: Any) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    """Return, of each parameter, the eigenvectors of its factors and the precisions in them.

    A matrix has two factors and precisions ``(rows, columns)``, a vector one and ``(rows,)``.
    """
    posterior = fitted.posterior_precision
    deltas = posterior.deltas.expand(len(posterior.eigenvalues))
    found = []
    blocks = zip(posterior.eigenvectors, posterior.eigenvalues, deltas, strict=True)
    for vectors, values, delta in blocks:
        spectrum = values[0] if len(values) == 1 else torch.outer(*values)
        found.append((tuple(v.detach() for v in vectors), (spectrum + delta).detach()))
    return found


def linearised(
    network: Network, density: LogDensity, mode: Tensor, change: Tensor, x: Tensor
) -> Tensor:
    """Return ``f(x, mode) + J(x) change`` for changes ``(draw, dim)``: ``(draw, row, ...)``."""

    def outputs(position: Tensor) -> Tensor:
        sites = {name: value[0] for name, value in density.constrain(position[None]).items()}
        values = {name: sites[site] for name, site in network.sites.items()}
        found: Tensor = torch.func.functional_call(network.module, values, (x,))
        return found

    def along(direction: Tensor) -> Tensor:
        slope: Tensor = torch.func.jvp(outputs, (mode,), (direction,))[1]
        return slope

    with torch.no_grad(), _deprecations_of_torch():
        return outputs(mode) + torch.func.vmap(along)(change)


def hessian_root(density: LogDensity, position: Tensor) -> tuple[Tensor, int]:
    """Return R of the covariance ``R R'`` that belongs to the Hessian of the potential energy.

    Eigenvalues below the least curvature of the prior, which saddles and a stop before the mode
    leave, are raised to it.

    Parameters
    ----------
    density : LogDensity
        The posterior.
    position : Tensor
        The mode ``(dim,)``.

    Returns
    -------
    root : Tensor
        ``(dim, dim)``.
    raised : int
        How many eigenvalues were.
    """
    row = sum(tensor[0].numel() for tensor in density.row_data()) if density.rows else 1
    rows_of_hessian = max(1, INPUTS_AT_ONCE // (row * max(1, density.rows)))
    hessian = _hessian(density.potential, position, rows_of_hessian)
    values, vectors = torch.linalg.eigh(hessian)
    floor = _least_prior_precision(density, position) / density.posterior_temperature
    raised = values < floor
    return vectors / values.clamp(min=floor).sqrt(), int(raised.sum())


def _least_prior_precision(density: LogDensity, position: Tensor) -> Tensor:
    """Least positive curvature of minus the log prior in any direction, a scalar."""
    curvature, independent = _prior_curvature(density, position)
    if not independent:
        curvature = torch.linalg.eigvalsh(_hessian(lambda z: -density.log_prior(z), position, None))
    positive = curvature[curvature > 0]
    return positive.min() if len(positive) else curvature.new_tensor(1e-6)


def _hessian(
    function: Callable[[Tensor], Tensor], position: Tensor, rows_at_once: int | None
) -> Tensor:
    """Hessian of a function of positions ``(1, dim)`` that returns ``(1,)``."""

    def value(point: Tensor) -> Tensor:
        return function(point[None])[0]

    # Twice in reverse: the forward mode of torch.func warns of what it is made of.
    slope = torch.func.grad(value)
    hessian: Tensor = torch.func.jacrev(slope, chunk_size=rows_at_once)(position)
    return 0.5 * (hessian + hessian.mT)


def log_prob_dense(root: Tensor, centred: Tensor) -> Tensor:
    """Log density ``(member, draw)`` of ``Normal(0, root root')`` at ``(member, draw, dim)``."""
    standard = torch.linalg.solve(root, centred.mT)
    log_scale = torch.linalg.slogdet(root).logabsdet[:, None]
    constant = 0.5 * math.log(2 * math.pi) * centred.shape[2]
    result: Tensor = -0.5 * standard.square().sum(1) - log_scale - constant
    return result
