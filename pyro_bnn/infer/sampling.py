"""The loop over warm-up and draws of a batch of chains: what is kept, when it is saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.adaptation import Adaptation
from pyro_bnn.infer.checkpoint import Checkpoint, Progress, Snapshot
from pyro_bnn.infer.dead_chains import DeadChains
from pyro_bnn.infer.draws import DrawBlock
from pyro_bnn.infer.interrupt import FinishStepFirst
from pyro_bnn.infer.kernels.hamiltonian import Info
from pyro_bnn.infer.kernels.kernel import Kernel
from pyro_bnn.infer.meter import Meter
from pyro_bnn.infer.running_statistics import with_statistics
from pyro_bnn.logdensity import LogDensity

__all__ = ["Plan", "Sampling"]

_HOPELESS = 25
"""Steps in a row in which every chain diverges, after which a run is given up."""


class Plan(NamedTuple):
    """What a run is to do; the parts are the arguments of `MCMC`."""

    num_samples: int
    warmup_steps: int
    segment_draws: int
    save_params: Sequence[str] | None
    hook: Callable[..., None] | None
    move: Callable[[Tensor, torch.Generator], Tensor] | None
    move_every: int


@dataclass
class Sampling:
    """One run of a kernel, from a state to the last draw.

    Attributes
    ----------
    kernel : Kernel
        What moves the chains.
    density : LogDensity
        The posterior.
    plan : Plan
        How long, and what is kept.
    warmup : Adaptation
        Learns from the steps of warm-up.
    generator : torch.Generator
        Of every random number.
    progress : Progress
        How far the run has come; brought up to date.
    block : DrawBlock
        Takes in the draws.
    checkpoint : Checkpoint, optional
        Where full blocks and states are saved.
    meter : Meter
        Shows the progress.
    interrupt : FinishStepFirst
        Tells of a Ctrl-C.
    """

    kernel: Kernel
    density: LogDensity
    plan: Plan
    warmup: Adaptation
    generator: torch.Generator
    progress: Progress
    block: DrawBlock
    checkpoint: Checkpoint | None
    meter: Meter
    interrupt: FinishStepFirst

    def __post_init__(self) -> None:
        self.dead = DeadChains(self.progress.dead)

    def run(self, state: Any) -> None:
        """Warm up what is left to warm up, then draw what is left to draw.

        Raises
        ------
        UserError
            If every chain is dead, or diverges for many steps in a row; the last good state is
            saved.
        KeyboardInterrupt
            After a Ctrl-C, once the step has ended and all is saved.
        """
        self._draw(self._warm_up(state))

    def _warm_up(self, state: Any) -> Any:
        progress = self.progress
        before, started = progress.seconds_warmup, time.perf_counter()
        while progress.warmup < self.plan.warmup_steps:
            state, info = self._step(state, progress.warmup + 1)
            seen, learnt = self.dead.hide(state, info)
            updated = self.warmup.update(seen, learnt, self.density, self.generator)
            state = self.dead.keep(state, updated)
            progress.warmup += 1
            progress.seconds_warmup = before + time.perf_counter() - started
            self._after(state, info, "Warmup", progress.warmup)
            due = progress.warmup % self.plan.segment_draws == 0
            if due or progress.warmup == self.plan.warmup_steps or self.interrupt.requested:
                self._save(state)
        return state

    def _draw(self, state: Any) -> None:
        progress = self.progress
        before, started = progress.seconds_sampling, time.perf_counter()
        kept = list(self.plan.save_params or self.density.stored)
        while progress.draws < self.plan.num_samples:
            state, info = self._step(state, progress.draws + 1)
            values = with_statistics(self.density, self.density.constrain(state.position))
            self.block.append({name: values[name] for name in kept}, info.stats)
            progress.draws += 1
            progress.divergences += int(info.stats["diverging"].sum())
            progress.seconds_sampling = before + time.perf_counter() - started
            self._after(state, info, "Sample", progress.draws)
            due = self.block.full or progress.draws == self.plan.num_samples
            if due or self.interrupt.requested:
                self._save(state)

    def _step(self, state: Any, count: int) -> tuple[Any, Info]:
        """Step `count` of a phase: the kernel's step, and the move where it is due."""
        after, info = self.kernel.step(state, self.density, self.generator)
        after, info = self.dead.bury(state, after, info)
        self._refuse_hopeless(after, info, count)
        state = after
        if self.plan.move is None or count % self.plan.move_every:
            return state, info
        position = self.plan.move(state.position, self.generator)
        state = self.dead.keep(state, self.kernel.moved(state, position, self.density))
        stats = {**info.stats, "lp": -state.potential}
        return state, info._replace(stats=stats, gradients=info.gradients + 1)

    def _after(self, state: Any, info: Info, stage: str, count: int) -> None:
        self.progress.gradients += info.gradients
        if self.meter.watched:
            acceptance = float(info.stats["acceptance_rate"].mean())
            self.meter.show(self.progress, acceptance, float(state.step_size.median()))
        if self.plan.hook is not None:
            self.plan.hook(self.kernel, self.density.unflatten(state.position), stage, count - 1)

    def _save(self, state: Any) -> None:
        """Put draws and state on disk; then give way to a Ctrl-C that came meanwhile."""
        if self.checkpoint is not None:
            if self.block.length:
                self.checkpoint.write_draws(self.block, self.progress)
            snapshot = Snapshot(state, self.generator.get_state(), self.progress)
            self.checkpoint.save(snapshot, self.warmup)
        if self.interrupt.requested:
            raise KeyboardInterrupt

    def _refuse_hopeless(self, state: Any, info: Info, count: int) -> None:
        """Give up a run of which no chain gets on; save what there is."""
        progress = self.progress
        everywhere = bool(info.stats["diverging"].all())
        progress.stuck = progress.stuck + 1 if everywhere else 0
        dead = len(progress.dead) == len(state.position)
        if not dead and progress.stuck < _HOPELESS:
            return
        self._save(state)
        phase = "draw" if progress.warmup == self.plan.warmup_steps else "warm-up step"
        what = "has become NaN or infinite" if dead else f"has diverged {_HOPELESS} times in a row"
        where = "" if self.checkpoint is None else f" is saved in {self.checkpoint.directory} and"
        raise UserError(
            f"MCMC: every chain {what} at {phase} {count}, with step size "
            f"{float(state.step_size.median()):.3g}; the last good state{where} holds "
            f"{progress.draws} draw{'' if progress.draws == 1 else 's'}: start anew with a smaller "
            "step_size or another schedule"
        )
