"""Settings of the stochastic-gradient kernels: minibatches and schedules."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pyro_bnn.infer.kernels.schedules import Constant, Cyclical, PolynomialDecay, Schedule
from pyro_bnn.infer.settings.base import KernelSettings

__all__ = ["StochasticGradientSettings"]

_OF_SCHEDULE = {
    "constant": (),
    "polynomial": ("power", "offset"),
    "cyclical": ("cycle_steps", "exploration"),
}


class StochasticGradientSettings(KernelSettings):
    """What the kernels that follow minibatch gradients share."""

    step_size: float = Field(
        1e-4, gt=0, description="First learning rate, on the summed log posterior."
    )
    batch_size: int | None = Field(
        None, ge=1, description="Rows of each chain's minibatch; all data by default."
    )
    steps_per_draw: int = Field(1, ge=1, description="Steps that make one draw.")
    control_variates: bool = Field(
        False, description="Correct minibatch gradients by those at each chain's start."
    )
    schedule: Literal["constant", "polynomial", "cyclical"] = Field(
        "constant", description="How the learning rate goes: constant, polynomial or cyclical."
    )
    power: float | None = Field(
        None, gt=0.5, le=1, description="Of the polynomial decay; 0.55 by default."
    )
    offset: float | None = Field(
        None, gt=0, description="Steps until the polynomial decay sets in; 1000 by default."
    )
    cycle_steps: int | None = Field(
        None, ge=1, description="Steps of a cycle of the cyclical schedule; 1000 by default."
    )
    exploration: float | None = Field(
        None, ge=0, lt=1, description="Part of a cycle without noise or draws; 0.8 by default."
    )

    @property
    def expected_gradients(self) -> int:
        """Gradients that a step costs each chain: those of the exploration, and of both points."""
        steps, schedule = self.steps_per_draw, self._schedule()
        if isinstance(schedule, Cyclical):
            steps = schedule.cycle_steps // max(1, schedule.sampling // steps)
        return steps * (2 if self.control_variates else 1)

    @model_validator(mode="after")
    def _refuse_keys_of_other_schedules(self) -> Self:
        for schedule, keys in _OF_SCHEDULE.items():
            for key in keys:
                if schedule != self.schedule and getattr(self, key) is not None:
                    raise ValueError(
                        f"key 'kernel.{key}' belongs to kernel.schedule = '{schedule}', "
                        f"not to '{self.schedule}'"
                    )
        if self.control_variates and self.batch_size is None:
            raise ValueError("kernel.control_variates needs kernel.batch_size")
        return self

    def options(self) -> dict[str, Any]:
        """Return the options of the kernel, its schedule built."""
        of_schedules = [key for keys in _OF_SCHEDULE.values() for key in keys]
        options = self.model_dump(exclude={"name", *of_schedules})
        return {**options, "schedule": self._schedule()}

    def _schedule(self) -> Schedule:
        kinds: dict[str, type[Constant] | type[Cyclical]] = {
            "constant": Constant,
            "polynomial": PolynomialDecay,
            "cyclical": Cyclical,
        }
        given = {key: getattr(self, key) for key in _OF_SCHEDULE[self.schedule]}
        return kinds[self.schedule](**{k: v for k, v in given.items() if v is not None})
