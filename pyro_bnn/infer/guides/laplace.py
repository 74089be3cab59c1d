"""The Laplace approximation around trained modes (MacKay 1992; Daxberger et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.curvature import (
    dense_root,
    diagonal_deviation,
    fit,
    hessian_root,
    kronecker_factors,
    linearised,
    log_prob_dense,
    maximise_marginal_likelihood,
    prior_precision,
    refuse_layers_without_factors,
    subnetwork_root,
)
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.infer.guides.loading import in_steps
from pyro_bnn.infer.guides.network import Network, find_network
from pyro_bnn.infer.guides.seeds import normal
from pyro_bnn.infer.guides.training import Training
from pyro_bnn.infer.running_statistics import with_statistics
from pyro_bnn.logdensity import LogDensity

__all__ = ["STRUCTURES", "Laplace"]

STRUCTURES = ("kron", "diag", "full", "last-layer", "subnetwork", "hessian")

_LARGEST = 5000


class Laplace(Guide):
    """A Gaussian at a mode with the inverse curvature of the log posterior as its covariance.

    The curvature is the generalised Gauss-Newton matrix of laplace-torch for a lifted network,
    one member after another, since laplace-torch takes one network at a time; or, for any model,
    the exact Hessian of the potential energy. Draws are weights, so predictions of a trace are
    those of the network itself; `glm_predictive` gives those of its linearisation.

    Parameters
    ----------
    model, training, init_strategy, fail_above
        As for every `Guide`; how the mode is found.
    structure : str
        ``"kron"`` (KFAC), ``"diag"``, ``"full"``; ``"last-layer"`` and ``"subnetwork"``, dense
        over some weights while the others stay at the mode; ``"hessian"``, of any model with at
        most 5,000 weights.
    prior : str or float
        ``"model"``, the curvature of the model's own prior; a precision instead of it; or
        ``"marglik"``, a precision a parameter tensor that maximises the marginal likelihood
        (with ``"kron"``, ``"diag"`` or ``"full"``). The mode is the model's in any case.
    subnetwork : int
        Weights of ``"subnetwork"``: those of the largest variance in the diagonal approximation.

    Raises
    ------
    UserError
        If an option is unknown or does not fit another; in `fit`, if the model has no network
        that laplace-torch can take, which names what to use instead.
    """

    decouples = True

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        training: Training | None = None,
        *,
        structure: str = "kron",
        prior: str | float = "model",
        subnetwork: int = 100,
        init_strategy: Callable[..., Any] | None = None,
        fail_above: float | None = None,
    ) -> None:
        super().__init__(model, training, init_strategy=init_strategy, fail_above=fail_above)
        if structure not in STRUCTURES:
            raise UserError(
                f"Laplace: structure {structure!r} is unknown; known are "
                f"{', '.join(map(repr, STRUCTURES))}"
            )
        if isinstance(prior, str) and prior not in ("model", "marglik"):
            raise UserError(f"Laplace: prior is {prior!r}, give 'model', 'marglik' or a precision")
        if isinstance(prior, int | float) and prior <= 0:
            raise UserError(f"Laplace: prior is {prior}, give a precision > 0")
        if prior != "model" and structure == "hessian":
            raise UserError("Laplace: structure 'hessian' is that of the model, with its prior")
        if prior == "marglik" and structure in ("last-layer", "subnetwork"):
            raise UserError(f"Laplace: prior 'marglik' needs all weights, not the {structure}")
        self.structure = structure
        self.prior = prior
        self.subnetwork = subnetwork
        self.has_density = structure not in ("last-layer", "subnetwork")
        self.raised: list[int] = []

    def numbers(self, density: LogDensity) -> int:
        """Count the mode, and the matrix where there is one over all weights."""
        dense = self.structure in ("full", "hessian")
        return density.dim * (density.dim if dense else 1)

    def start(self, position: Tensor, density: LogDensity) -> Parameters:
        """Start as every guide does, with a network whose curvature can be had in the end."""
        if self.structure == "kron":
            refuse_layers_without_factors(find_network(density).module)
        return super().start(position, density)

    def finish(self, parameters: Parameters, memory: Parameters, density: LogDensity) -> Parameters:
        """Find the curvature of each member at its mode."""
        position = parameters["position"]
        self._refuse_large(density)
        network = None if self.structure == "hessian" else find_network(density)
        found: list[Parameters] = []
        for point in position:
            if bool(point.isfinite().all()):
                found.append(self._curvature(point, density, network))
            else:
                found.append({})
        like = next((part for part in found if part), None)
        if like is None:
            return {"mean": position}
        blank = {name: torch.full_like(value, 0) for name, value in like.items()}
        stacked = {
            name: torch.stack([part.get(name, blank[name]) for part in found]) for name in like
        }
        return {"mean": position, **stacked}

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw weights."""
        mean = state["mean"]
        if "root" in state:
            noise = normal(sources, (count, state["root"].shape[1]), mean)
            change = noise @ state["root"].mT
            index = state["index"][:, None].expand_as(change)
            return mean[:, None].repeat(1, count, 1).scatter_add(2, index, change)
        noise = normal(sources, (count, mean.shape[1]), mean)
        if "deviation" in state:
            return mean[:, None] + state["deviation"][:, None] * noise
        drawn = mean[:, None] + torch.zeros_like(noise)
        for part, vectors, spectrum in _blocks(state):
            scaled = _shaped(noise[:, :, part], spectrum) / spectrum[:, None].sqrt()
            for axis, turn in enumerate(vectors):
                scaled = _turned(scaled, turn, axis)
            drawn[:, :, part] += scaled.flatten(2)
        return drawn

    def log_prob(self, state: Parameters, position: Tensor) -> Tensor:
        """Log density of the Gaussian."""
        if not self.has_density:
            return super().log_prob(state, position)
        centred = position - state["mean"][:, None]
        if "root" in state:
            index = state["index"][:, None].expand_as(centred)
            return log_prob_dense(state["root"], centred.gather(2, index))
        if "deviation" in state:
            log_scale = state["deviation"].log().sum(1, keepdim=True)
            quadratic = (centred / state["deviation"][:, None]).square().sum(2)
        else:
            quadratic, log_scale = centred.new_zeros(()), centred.new_zeros(())
            for part, vectors, spectrum in _blocks(state):
                turned = _shaped(centred[:, :, part], spectrum)
                for axis, turn in enumerate(vectors):
                    turned = _turned(turned, turn.mT, axis)
                quadratic = quadratic + (turned.square() * spectrum[:, None]).flatten(2).sum(2)
                log_scale = log_scale - 0.5 * spectrum.flatten(1).log().sum(1, keepdim=True)
        result: Tensor = -0.5 * quadratic - log_scale
        return result - 0.5 * math.log(2 * math.pi) * centred.shape[2]

    def glm_predictive(
        self, x: Tensor, num_samples: int = 100, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw outputs of the network made linear in its weights around the mode.

        ``f(x, mode) + J(x) (w - mode)`` with w a draw of the guide: the predictive of the model
        that the Gauss-Newton curvature belongs to (Immer et al. 2021), which often fits better
        than the network itself at drawn weights. A softmax, or the noise, comes on top.

        Parameters
        ----------
        x : Tensor
            Inputs of the network ``(row, ...)``.
        num_samples : int
            Draws of each member.
        generator : torch.Generator, optional
            Source of the members' seeds.

        Returns
        -------
        Tensor
            Logits or means ``(member, draw, row, ...)``.

        Raises
        ------
        UserError
            If the guide is not fitted, or the model has no one network that all sites belong to.
        """
        density = self.density
        network = find_network(density)
        draws = self.sample_positions(num_samples, generator)
        outputs = []
        for mode, drawn in zip(self.state["mean"], draws, strict=True):
            values = with_statistics(density, density.constrain(mode[None]))
            network.place({name: value[0] for name, value in values.items()})
            outputs.append(linearised(network, density, mode, drawn - mode, x))
        return torch.stack(outputs)

    def _curvature(self, point: Tensor, density: LogDensity, network: Network | None) -> Parameters:
        """State of one member, its temperature included."""
        warmth = density.posterior_temperature**0.5
        everything = torch.arange(density.dim, device=point.device)
        if network is None:
            root, raised = hessian_root(density, point)
            self.raised.append(raised)
            return {"root": root, "index": everything}

        values = with_statistics(density, density.constrain(point[None]))
        network.place({name: value[0] for name, value in values.items()})
        order = _order(density, network)
        if isinstance(self.prior, str):
            few = in_steps(density, self.training.batch_size)
            precision = prior_precision(few, point)[order]
        else:
            precision = torch.full_like(point, self.prior)
        if self.structure == "kron" or self.prior == "marglik":
            sizes = [
                density.sites[site].stop - density.sites[site].start
                for site in network.sites.values()
            ]
            precision = torch.stack([part.mean() for part in precision.split(sizes)])
        if not bool((precision > 0).all()):
            raise UserError(
                "the model's prior has no curvature at the mode, as a Laplace prior has not: give "
                "Laplace(prior=...) a precision"
            )
        if self.structure in ("last-layer", "subnetwork"):
            chosen = self._chosen(density, network, precision, order)
            root = subnetwork_root(network, density, precision, chosen)
            return {"root": warmth * root, "index": order[chosen]}
        fitted = fit(network, density, self.structure, precision)
        if self.prior == "marglik":
            maximise_marginal_likelihood(fitted)
        if self.structure == "full":
            return {"root": warmth * dense_root(fitted), "index": order}
        if self.structure == "diag":
            deviation = torch.empty_like(point)
            deviation[order] = warmth * diagonal_deviation(fitted)
            return {"deviation": deviation}
        state: Parameters = {}
        factors = kronecker_factors(fitted)
        for site, (vectors, spectrum) in zip(network.sites.values(), factors, strict=True):
            start = density.sites[site].start
            state[f"spectrum.{start}"] = spectrum / warmth**2
            for axis, turn in enumerate(vectors):
                state[f"turn{axis}.{start}"] = turn
        return state

    def _chosen(
        self, density: LogDensity, network: Network, precision: Tensor, order: Tensor
    ) -> Tensor:
        """Places, in the module's order, of the weights that are not fixed."""
        if self.structure == "last-layer":
            inside = torch.zeros(density.dim, dtype=torch.bool, device=order.device)
            for name in network.last:
                inside[density.sites[name].start : density.sites[name].stop] = True
            return inside[order].nonzero().flatten()
        spread = diagonal_deviation(fit(network, density, "diag", precision))
        return spread.topk(min(self.subnetwork, len(spread))).indices.sort().values

    def _refuse_large(self, density: LogDensity) -> None:
        if self.structure in ("hessian", "full") and density.dim > _LARGEST:
            raise UserError(
                f"Laplace: structure '{self.structure}' inverts a matrix of {density.dim:,} rows; "
                "take 'kron', 'diag' or 'last-layer'"
            )


def _order(density: LogDensity, network: Network) -> Tensor:
    """Place in the flat position of every weight of the module, in the module's order."""
    sites = [density.sites[name] for name in network.sites.values()]
    return torch.cat([torch.arange(site.start, site.stop) for site in sites]).to(density.device)


def _blocks(state: Parameters) -> list[tuple[slice, list[Tensor], Tensor]]:
    """Part of the position, eigenvectors of the factors and precisions of every parameter."""
    found = []
    for name, spectrum in state.items():
        kind, _, start = name.partition(".")
        if kind == "spectrum":
            size = spectrum[0].numel()
            part = slice(int(start), int(start) + size)
            vectors = [state[f"turn{axis}.{start}"] for axis in range(spectrum.ndim - 1)]
            found.append((part, vectors, spectrum))
    return found


def _shaped(values: Tensor, spectrum: Tensor) -> Tensor:
    """Give ``(member, draw, size)`` the axes of the factors."""
    return values.reshape(*values.shape[:2], *spectrum.shape[1:])


def _turned(values: Tensor, turn: Tensor, axis: int) -> Tensor:
    """Multiply one axis of ``(member, draw, rows[, columns])`` by matrices ``(member, n, n)``."""
    moved = values.movedim(2 + axis, -1)
    shape = moved.shape
    product = moved.reshape(shape[0], -1, shape[-1]) @ turn.mT
    return product.reshape(shape).movedim(-1, 2 + axis)
