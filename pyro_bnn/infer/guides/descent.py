"""Stochastic gradient descent of stacked members: one batched gradient, one fused optimiser."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_bnn.infer.guides.loading import augmented_batches, in_steps
from pyro_bnn.infer.guides.training import PRECISIONS, Training
from pyro_bnn.logdensity import LogDensity, Rows

__all__ = ["Descent", "Objective", "Parameters", "example_nodes"]

Parameters = dict[str, Tensor]


class Objective(Protocol):
    """What a guide says of its training."""

    @property
    def training(self) -> Training:
        """The settings."""

    @property
    def epochs(self) -> int:
        """Passes over the data in all."""

    @property
    def gradients_a_minibatch(self) -> int:
        """Gradients of each member that a call of `gradient` takes."""

    def rate(self, epoch: float) -> float:
        """Learning rate after so many epochs."""

    def gradient(
        self,
        parameters: Parameters,
        density: LogDensity,
        indices: Rows | None,
        sources: Sequence[torch.Generator],
    ) -> tuple[Tensor, Parameters]:
        """Losses ``(member,)`` in units of the potential energy, and their gradients."""

    def collect(self, memory: Parameters, parameters: Parameters, epoch: int) -> Parameters:
        """Take note of the iterate at the end of an epoch."""


class Descent:
    """The training of a block of members; everything that decides how it goes on.

    Members share nothing but the operators: every tensor has a leading axis ``member``, every
    member its own random numbers and order of data, and the optimisers are elementwise.

    Parameters
    ----------
    objective : Objective
        The guide.
    density : LogDensity
        The posterior.
    parameters : dict of str to Tensor
        Where to start, ``(member, ...)`` each.
    sources : sequence of torch.Generator
        Random numbers of each member.
    """

    def __init__(
        self,
        objective: Objective,
        density: LogDensity,
        parameters: Mapping[str, Tensor],
        sources: Sequence[torch.Generator],
    ) -> None:
        self._objective = objective
        self._density = density.in_precision(PRECISIONS[objective.training.precision])
        self._sources = sources
        self._rows = max(density.rows, 1)
        self._pull: Callable[[Tensor], Tensor] | None = None
        self.parameters = {name: value.detach().clone() for name, value in parameters.items()}
        self.memory: Parameters = {}
        self.losses: list[Tensor] = []
        self.gradients = 0
        self._optimiser = objective.training.build(list(self.parameters.values()))

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.losses)

    @property
    def done(self) -> bool:
        """Whether all epochs are done, or no member is left that could go on."""
        if self.epoch >= self._objective.epochs:
            return True
        return bool(self.losses) and not bool(self.losses[-1].isfinite().any())

    def advance(self) -> None:
        """Train for one epoch."""
        total = torch.zeros_like(next(iter(self.parameters.values())).flatten(1)[:, 0])
        batches, count = self._batches()
        together = min(self._objective.training.accumulate, count)
        steps = count // together
        for number in range(steps):
            self._set_rate(self.epoch + number / steps)
            summed: Parameters = {}
            for indices in itertools.islice(batches, together):
                loss, gradients = self._objective.gradient(
                    self.parameters, self._density, indices, self._sources
                )
                total += loss / together
                summed = {n: summed[n] + g if summed else g for n, g in gradients.items()}
            self._step(summed, together)
        self.gradients += steps * together * self._objective.gradients_a_minibatch
        self.losses.append(total / (steps * self._rows))
        self.memory = self._objective.collect(self.memory, self.parameters, self.epoch)

    def tensors(self) -> Parameters:
        """Return everything that decides the epochs to come."""
        found = {f"parameter.{name}": value for name, value in self.parameters.items()}
        found |= {f"memory.{name}": value for name, value in self.memory.items()}
        for name, parameter in self.parameters.items():
            for slot, value in self._optimiser.state[parameter].items():
                found[f"optimiser.{name}.{slot}"] = value
        found["sources"] = torch.stack([source.get_state() for source in self._sources])
        found["losses"] = self.loss_history()
        found["gradients"] = torch.tensor(self.gradients)
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        device = self._density.device
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "parameter":
                self.parameters[rest].copy_(value)
            elif kind == "memory":
                self.memory[rest] = value.to(device)
            elif kind == "optimiser":
                parameter, _, slot = rest.rpartition(".")
                slots: dict[str, Any] = self._optimiser.state[self.parameters[parameter]]
                slots[slot] = value.to(device)
        for source, state in zip(self._sources, tensors["sources"], strict=True):
            source.set_state(state.clone())  # torch reads from the start of the storage
        self.losses = list(tensors["losses"].to(device).unbind(1))
        self.gradients = int(tensors["gradients"])

    def loss_history(self) -> Tensor:
        """Mean loss per row of each epoch, ``(member, epoch)``."""
        if not self.losses:
            return torch.empty((len(self._sources), 0), dtype=self._density.dtype)
        return torch.stack(self.losses, 1)

    def _batches(self) -> tuple[Iterator[Rows | None], int]:
        """Rows of each minibatch, in an order of each member's own, and how many there are."""
        asked = self._objective.training.batch_size
        whole = asked is None or asked >= self._rows
        augmented = self._density.transform is not None
        if whole and not augmented:
            return iter([None]), 1
        size = self._rows if whole or asked is None else asked
        orders = torch.stack(
            [
                torch.randperm(self._rows, generator=source, device=source.device)
                for source in self._sources
            ]
        )
        count = self._rows // size
        if not augmented:
            # Each minibatch in memory of its own, as the gather reads it fastest.
            parts = orders[:, : count * size].unflatten(1, (count, size)).transpose(0, 1)
            return iter(parts.contiguous()), count
        seeds = [
            int(torch.randint(2**62, (), generator=source, device=source.device))
            for source in self._sources
        ]
        loaders = self._objective.training.loaders
        return augmented_batches(self._density, orders, size, seeds, loaders), count

    def _set_rate(self, epoch: float) -> None:
        """Set the learning rate, and the momentum where there is one, of so many epochs."""
        training = self._objective.training
        for group in self._optimiser.param_groups:
            group["lr"] = self._objective.rate(epoch)
            if "momentum" in group:
                group["momentum"] = training.momentum_at(epoch / training.epochs)

    def _step(self, gradients: Mapping[str, Tensor], count: int) -> None:
        """Move by the sum of the gradients of `count` minibatches."""
        training = self._objective.training
        pull = self._prior_pull() if training.decoupled else {}
        scaled = {name: value / (count * self._rows) for name, value in gradients.items()}
        for name, direction in pull.items():
            scaled[name] = scaled[name] - direction / self._rows
        if training.clip_norm is not None:
            scaled = _shortened(scaled, training.clip_norm)
        for name, parameter in self.parameters.items():
            parameter.grad = scaled[name]
        self._optimiser.step()
        for name, direction in pull.items():
            rate = self._optimiser.param_groups[0]["lr"]
            self.parameters[name] -= rate / self._rows * direction

    def _prior_pull(self) -> Parameters:
        """Gradient of minus the log prior, tempered as it is in the potential energy."""
        position = self.parameters["position"]
        if self._pull is None:
            density = in_steps(self._density, self._objective.training.batch_size)

            def prior(z: Tensor) -> Tensor:
                return -density.log_prior(z).sum() / density.posterior_temperature

            # The graph of the gradient holds no operator of the likelihood: they are dead code.
            graph = make_fx(torch.func.grad(prior))(position.detach().clone())
            graph.graph.eliminate_dead_code()
            graph.recompile()
            self._pull = graph
        return {"position": self._pull(position)}


def _shortened(gradients: Parameters, limit: float) -> Parameters:
    """Scale the gradient of each member, over all its parameters, to a norm of at most `limit`."""
    squares = torch.stack([value.flatten(1).square().sum(1) for value in gradients.values()])
    factor = (limit / squares.sum(0).sqrt()).clamp(max=1.0)
    return {
        name: value * factor.view(-1, *(1 for _ in value.shape[1:]))
        for name, value in gradients.items()
    }


def example_nodes(density: LogDensity, indices: Tensor | None = None) -> Mapping[str, Any]:
    """Run the model once at an arbitrary position, and return its nodes.

    It sees the rows that are asked for, or those that its sites were learnt from: few of many.
    At zero networks return zero, whatever becomes of it in the model.
    """
    source = torch.Generator().manual_seed(0)
    position = 0.1 * torch.randn((1, density.dim), dtype=torch.float64, generator=source)
    position = position.to(density.device, density.dtype)
    values = {name: value[0] for name, value in density.constrain(position).items()}
    args, kwargs = density.some.args, density.some.kwargs
    if indices is not None:
        args, kwargs, _ = density.minibatch(indices)
    nodes: Mapping[str, Any] = density.trace_at(values, *args, **kwargs).nodes
    return nodes
