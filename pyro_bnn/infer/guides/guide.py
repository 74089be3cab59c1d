"""The base of every guide: members trained as one batch, under the face of a Pyro guide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Descent, Parameters
from pyro_bnn.infer.guides.failure import Failure
from pyro_bnn.infer.guides.fitting import Fitted, Fitting
from pyro_bnn.infer.guides.loading import first_rows
from pyro_bnn.infer.guides.seeds import generators
from pyro_bnn.infer.guides.sites import Place, declare_statistics, places, sample_sites
from pyro_bnn.infer.guides.training import Training
from pyro_bnn.infer.running_statistics import with_statistics
from pyro_bnn.logdensity import LogDensity, Rows

__all__ = ["Guide"]


class Guide(ABC):
    """An approximate posterior over the flat unconstrained vector of a `LogDensity`.

    A subclass says where it starts, what it minimises and how it draws, for a batch of members
    ``(member, ...)``; `Ensemble` sets the number of members, which is one here. All else is
    common: the training, its resumption and its failures, and Pyro's guide contract.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model, or its log density where that has been built already.
    training : Training, optional
        Optimiser, learning rate, minibatches.
    init_strategy : callable, optional
        One of Pyro's ``init_to_*`` functions; draws from the prior by default.
    fail_above : float, optional
        A member whose mean loss in the last epoch is above so many nats a row has failed.

    Attributes
    ----------
    size : int
        Members asked for.
    seeds : list of int
        Seeds of the members that are left.
    members : list of int
        Their numbers.
    failures : list of Failure
        Every training that failed, retried or not.
    batching : str
        How many members were trained at once, and why.
    """

    trainable: tuple[str, ...] = ()
    """Parameters that `pyro.infer.SVI` may train instead of `fit`."""

    has_density = False
    """Whether `log_density` exists."""

    decouples = False
    """Whether the parameters are a position, so that AdamW can pull them to the prior."""

    size = 1
    retries = 0
    block: int | None = None
    workers = 1

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        training: Training | None = None,
        *,
        init_strategy: Callable[..., Any] | None = None,
        fail_above: float | None = None,
    ) -> None:
        self.model = model
        self.training = training or Training()
        self.init_strategy = init_strategy
        self.fail_above = fail_above
        self.seeds: list[int] = []
        self.members: list[int] = []
        self.failures: list[Failure] = []
        self.gradients = 0
        self.batching = ""
        self._density = model if isinstance(model, LogDensity) else None
        self._state: Parameters = {}
        self._places: dict[str, Place] = {}
        if self.training.decoupled and not self.decouples:
            raise UserError(
                f"{type(self).__name__} cannot use the optimiser 'adamw', which pulls weights to "
                "the prior past the gradient: take 'adam', the prior is in the loss already"
            )

    # What a guide is: functions of a batch of members

    @property
    def epochs(self) -> int:
        """Passes over the data in all."""
        return self.training.epochs

    @property
    def gradients_a_minibatch(self) -> int:
        """Gradients of each member that a call of `gradient` takes."""
        return 1

    @property
    def rows_of_a_step(self) -> int | None:
        """Rows whose statistics a batch norm in training mode meets; None for all."""
        return self.training.batch_size

    def rate(self, epoch: float) -> float:
        """Learning rate after so many epochs."""
        return self.training.rate(epoch / self.training.epochs)

    def numbers(self, density: LogDensity) -> int:
        """Count the numbers that a member keeps, by which blocks of members are sized."""
        return density.dim

    def start(self, position: Tensor, density: LogDensity) -> Parameters:
        """Return the parameters from which members at positions ``(member, dim)`` start."""
        return {"position": position}

    def gradient(
        self,
        parameters: Parameters,
        density: LogDensity,
        indices: Rows | None,
        sources: Sequence[torch.Generator],
    ) -> tuple[Tensor, Parameters]:
        """Losses ``(member,)`` in units of the potential energy, and their gradients."""
        value, gradient = density.value_and_grad(parameters["position"], indices)
        return value, {"position": gradient}

    def collect(self, memory: Parameters, parameters: Parameters, epoch: int) -> Parameters:
        """Take note of the iterate at the end of an epoch; `memory` is empty at first."""
        return memory

    def finish(self, parameters: Parameters, memory: Parameters, density: LogDensity) -> Parameters:
        """Turn what training left into the state that draws are made from."""
        return parameters

    def train(
        self,
        density: LogDensity,
        sources: Sequence[torch.Generator],
        resume: Mapping[str, Tensor] | None,
        save: Callable[[Mapping[str, Tensor]], None] | None,
    ) -> tuple[Parameters, Tensor, int]:
        """Train a block of members: their state, their losses, and the gradients it took."""
        parameters = self.start(self._positions(density, sources), density)
        descent = Descent(self, density, parameters, sources)
        if resume is not None:
            descent.load(resume)
        while not descent.done:
            descent.advance()
            if save is not None:
                save(descent.tensors())
        state = self.finish(descent.parameters, descent.memory, density)
        return state, descent.loss_history(), descent.gradients

    @abstractmethod
    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw positions ``(member, draw, dim)``, differentiably where the guide has a density."""

    def log_prob(self, state: Parameters, position: Tensor) -> Tensor:
        """Log density of positions ``(member, draw, dim)`` under each one's own member."""
        raise UserError(f"{type(self).__name__} has no density: it is a set of points")

    # Fitting

    def fit(
        self,
        *args: Any,
        seed: int | None = None,
        run_dir: str | Path | None = None,
        resume: bool = False,
        save_every: int = 10,
        **kwargs: Any,
    ) -> Self:
        """Train every member.

        Parameters
        ----------
        *args, **kwargs
            Data for the model.
        seed : int, optional
            Of the first member, from which those of the others follow; by default that of the run
            which is resumed, or drawn from torch's generator, so that ``pyro.set_rng_seed`` counts.
        run_dir : path, optional
            Directory in which the state of the training is kept.
        resume : bool
            Go on from the state in `run_dir`, if there is one.
        save_every : int
            Epochs between two saves.

        Returns
        -------
        Guide
            Itself.

        Raises
        ------
        UserError
            If the model cannot be trained, all members fail, or `run_dir` holds a training that
            is not to be resumed or was started with another seed.
        """
        density = self.setup(*args, **kwargs)
        found = Fitting(self, density, seed, run_dir, save_every).run(resume=resume)
        self.take(found)
        self._state = found.state(density.device)
        return self

    def take(self, found: Fitted) -> None:
        """Take note of how a training ended, the state itself apart."""
        self.failures, self.batching = found.failures, found.batching
        self.members, self.seeds, self.gradients = found.members, found.seeds, found.gradients

    def take_step(
        self, density: LogDensity, sources: Sequence[torch.Generator]
    ) -> Callable[[], object]:
        """Return a function that computes one gradient of as many members as there are sources."""
        parameters = self.start(self._positions(density, sources), density)
        rows = first_rows(density, len(sources), self.training.batch_size)
        return lambda: self.gradient(parameters, density, rows, sources)

    def _positions(self, density: LogDensity, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw where members start, each tried on as many rows as a step has: ``(member, dim)``.

        The activations of all rows at once may not fit, and would cost as much as an epoch.
        """
        size = self.training.batch_size
        whole = (size is None or size >= density.rows) and density.transform is None
        rows = None if whole else first_rows(density, len(sources), size)
        return density.initial_position(
            len(sources), sources, strategy=self.init_strategy, indices=rows
        )

    def setup(self, *args: Any, **kwargs: Any) -> LogDensity:
        """Learn the sites of the model on the given data, without training."""
        if not isinstance(self.model, LogDensity):
            self._density = LogDensity(self.model, *args, **kwargs)
        return self.density

    @property
    def density(self) -> LogDensity:
        """The log density that the guide approximates."""
        if self._density is None:
            raise UserError(
                f"{type(self).__name__} does not know the model's sites yet: call fit(), or "
                "setup() with the model's data"
            )
        self._density = self._density.in_batches(self.rows_of_a_step)
        return self._density

    @property
    def state(self) -> Parameters:
        """What draws are made from, ``(member, ...)`` each."""
        if not self._state:
            raise UserError(f"{type(self).__name__} has not been fitted: call fit() first")
        return {name: value.detach() for name, value in self._state.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the fitted state, ``(member, ...)`` each."""
        return self.state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` of a guide of the same kind and model returned.

        Raises
        ------
        UserError
            If the tensors differ in their number of members, or are of another number of weights
            than the model's.
        """
        counts = {name: len(value) for name, value in state.items()}
        if len(set(counts.values())) != 1:
            raise UserError(f"the state has differing numbers of members: {counts}")
        for name in ("position", "loc", "mean"):
            if self._density is not None and name in state:
                given, dim = state[name].shape[1], self._density.dim
                if given != dim:
                    raise UserError(
                        f"the state covers {given} weights, the model's sites have {dim}: it is "
                        "that of another model"
                    )
        self._state = {name: value.detach().clone() for name, value in state.items()}
        self.members = list(range(next(iter(counts.values()))))

    # Drawing

    def sample_posterior(
        self, num_samples: int, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Draw site values from every member, and the running statistics that go with them.

        Parameters
        ----------
        num_samples : int
            Draws of each member.
        generator : torch.Generator, optional
            Source of the members' seeds; torch's own generator by default.

        Returns
        -------
        dict of str to Tensor
            Values in the sites' own spaces, ``(member, draw, *shape)``.
        """
        return self.constrain(self.sample_positions(num_samples, generator))

    def sample_positions(
        self, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw flat unconstrained positions ``(member, draw, dim)``; see `sample_posterior`."""
        if num_samples < 1:
            raise UserError(f"num_samples is {num_samples}, give at least 1")
        state = self.state
        count = len(next(iter(state.values())))
        device = None if generator is None else generator.device
        seeds = torch.randint(2**62, (count,), generator=generator, device=device).tolist()
        with torch.no_grad():
            return self.draw(state, num_samples, generators(seeds, self.density.device))

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Map positions ``(member, draw, dim)`` to the sites' own spaces; add the statistics."""
        values = with_statistics(self.density, self.density.constrain(position.flatten(0, 1)))
        return {name: value.unflatten(0, position.shape[:2]) for name, value in values.items()}

    def log_density(self, position: Tensor) -> Tensor:
        """Log density of the guide in unconstrained space.

        Parameters
        ----------
        position : Tensor
            ``(member, draw, dim)``, as `sample_positions` returns them.

        Returns
        -------
        Tensor
            ``(member, draw)``, of each position under its own member.

        Raises
        ------
        UserError
            If the guide has none.
        """
        return self.log_prob(self.state, position)

    # Pyro's contract

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the model's latent sites: one draw of a member chosen at random.

        With one member and a density, what is sampled carries its log density and depends on the
        parameters in Pyro's store, so that `pyro.infer.SVI` can train the guide.
        """
        with pyro.poutine.block():  # what runs the model to learn of it is no part of the guide
            if self._density is None:
                self.setup(*args, **kwargs)
            if not self._places:
                self._places = places(self.density)
            seeds = torch.randint(2**31, (2,)).tolist()
            sources = generators(seeds[:1], self.density.device)
            if not self._state:
                self._begin(sources[0])
        state = self._state_for_pyro()
        members = len(next(iter(state.values())))
        chosen = seeds[1] % members
        one = {name: value[chosen : chosen + 1] for name, value in state.items()}
        position = self.draw(one, 1, sources)
        if self.has_density and members == 1:
            log_prob = self.log_prob(one, position)[0, 0]
            auxiliary = dist.Delta(position[0, 0], log_density=log_prob, event_dim=1)
            pyro.sample("_pyro_bnn_position", auxiliary, infer={"is_auxiliary": True})
        values = sample_sites(self.density, self._places, position[0, 0])
        return values | declare_statistics(self.density, values)

    def _begin(self, source: torch.Generator) -> None:
        """Start where `fit` would, for `pyro.infer.SVI` to go on."""
        if not self.trainable:
            raise UserError(f"{type(self).__name__} has not been fitted: call fit() first")
        position = self.density.initial_position(1, source, strategy=self.init_strategy)
        self._state = self.start(position, self.density)

    def _state_for_pyro(self) -> Parameters:
        """Return the state, its trainable part as parameters in Pyro's store."""
        store = pyro.get_param_store()
        for name in self.trainable:
            key = f"{type(self).__name__}.{name}"
            if key not in store or store[key] is not self._state[name]:
                store[key] = self._state[name].detach()
                self._state[name] = store[key]
            pyro.param(key)
        return self._state
