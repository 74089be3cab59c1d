"""The progress line of a run: silent unless someone watches a terminal."""

from __future__ import annotations

from types import TracebackType

from pyro_bnn.infer.checkpoint import Progress
from pyro_bnn.infer.progress_line import progress_line

__all__ = ["Meter"]


class Meter:
    """Shows warm-up and sampling: acceptance, step size, divergences and the time left.

    Parameters
    ----------
    warmup_steps, num_samples : int
        Lengths of the two phases.
    quiet : bool
        Show nothing, terminal or not.
    """

    def __init__(self, warmup_steps: int, num_samples: int, *, quiet: bool) -> None:
        self._bar = progress_line("{task.description:<8}", "{task.fields[status]}", quiet=quiet)
        self._totals = {"warm-up": warmup_steps, "sample": num_samples}
        self._phase = ""

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, progress: Progress, acceptance: float, step_size: float) -> None:
        """Bring the line up to date after one step of all chains."""
        phase = "sample" if progress.draws else "warm-up"
        if phase != self._phase:
            self._task = self._bar.add_task(phase, total=self._totals[phase], status="")
            self._phase = phase
        dead = f" dead {len(progress.dead)}" if progress.dead else ""
        self._bar.update(
            self._task,
            completed=progress.draws if phase == "sample" else progress.warmup,
            status=f"acc {acceptance:.2f} step {step_size:.1e} div {progress.divergences}{dead}",
        )

    @property
    def watched(self) -> bool:
        """Whether anything is shown: figures for the line need fetching only then."""
        return not self._bar.disable
