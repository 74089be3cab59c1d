"""Step-size schedules of stochastic-gradient kernels, and which of their steps become draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pyro_bnn.errors import UserError

__all__ = ["Constant", "Cyclical", "PolynomialDecay", "Schedule"]


class Schedule(Protocol):
    """How large step `count` is, counted from 0 at the start of the run, warm-up included."""

    @property
    def name(self) -> str:
        """What a recipe calls it."""
        ...

    def factor(self, count: int) -> float:
        """Return what the first step size is multiplied by."""
        ...

    def is_noisy(self, count: int) -> bool:
        """Whether the step samples; without noise it optimises."""
        ...

    def ends_draw(self, count: int, steps_per_draw: int) -> bool:
        """Whether the state after step `count` is a draw."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same step size for ever.

    Examples
    --------
    >>> Constant().factor(1000)
    1.0
    """

    name: ClassVar[str] = "constant"

    def factor(self, count: int) -> float:
        """Return 1."""
        return 1.0

    def is_noisy(self, count: int) -> bool:
        """Return True: every step samples."""
        return True

    def ends_draw(self, count: int, steps_per_draw: int) -> bool:
        """Whether a whole draw's steps have been made."""
        return (count + 1) % steps_per_draw == 0


@dataclass(frozen=True)
class PolynomialDecay(Constant):
    """A step size that falls as ``(1 + count / offset) ** -power``.

    The schedule of Welling & Teh 2011, ``a (b + t) ** -power``, started at the kernel's step size.

    Parameters
    ----------
    power : float
        In (0.5, 1], so that step sizes sum to infinity and their squares do not.
    offset : float
        Steps after which the decay has set in.

    Raises
    ------
    UserError
        If a number is out of range.

    Examples
    --------
    >>> PolynomialDecay(power=1.0, offset=100).factor(300)
    0.25
    """

    name: ClassVar[str] = "polynomial"
    power: float = 0.55
    offset: float = 1000.0

    def __post_init__(self) -> None:
        if not 0.5 < self.power <= 1:
            raise UserError(f"PolynomialDecay: power is {self.power}, give a number in (0.5, 1]")
        if self.offset <= 0:
            raise UserError(f"PolynomialDecay: offset is {self.offset}, give a number > 0")

    def factor(self, count: int) -> float:
        """Return the decay after `count` steps."""
        return float((1 + count / self.offset) ** -self.power)


@dataclass(frozen=True)
class Cyclical:
    """Cosine cycles, each an exploration without noise and then a sampling stage.

    Zhang et al. 2020, equation 1: within a cycle the step size falls from the first one to zero
    along a half cosine. The large steps at the start of a cycle leave the mode of the last one.
    Draws come from the sampling stages only, one every `steps_per_draw` steps of the stage; what is
    left of a stage that holds no whole draw is not used. A kernel's step is the way to the next
    draw, exploration included, so that ``num_samples`` counts draws whatever the cycle.

    Parameters
    ----------
    cycle_steps : int
        Length of a cycle.
    exploration : float
        The part of a cycle, in [0, 1), that explores.

    Raises
    ------
    UserError
        If a number is out of range.

    Examples
    --------
    >>> schedule = Cyclical(cycle_steps=10, exploration=0.5)
    >>> [schedule.is_noisy(count) for count in (0, 4, 5, 9, 10)]
    [False, False, True, True, False]
    >>> [count for count in range(20) if schedule.ends_draw(count, 2)]
    [6, 8, 16, 18]
    """

    name: ClassVar[str] = "cyclical"
    cycle_steps: int = 1000
    exploration: float = 0.8

    def __post_init__(self) -> None:
        if self.cycle_steps < 1:
            raise UserError(f"Cyclical: cycle_steps is {self.cycle_steps}, give at least 1")
        if not 0 <= self.exploration < 1:
            raise UserError(f"Cyclical: exploration is {self.exploration}, give a number in [0, 1)")

    @property
    def exploring(self) -> int:
        """Steps of the exploration stage."""
        return math.floor(self.exploration * self.cycle_steps)

    @property
    def sampling(self) -> int:
        """Steps of the sampling stage."""
        return self.cycle_steps - self.exploring

    def factor(self, count: int) -> float:
        """Return the half cosine."""
        return 0.5 * (1 + math.cos(math.pi * (count % self.cycle_steps) / self.cycle_steps))

    def is_noisy(self, count: int) -> bool:
        """Whether the step belongs to a sampling stage."""
        return count % self.cycle_steps >= self.exploring

    def ends_draw(self, count: int, steps_per_draw: int) -> bool:
        """Whether a whole draw's steps have been made within the sampling stage."""
        within = count % self.cycle_steps - self.exploring
        return within >= 0 and (within + 1) % steps_per_draw == 0
