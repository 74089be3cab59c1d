"""Let a step that has begun end before Ctrl-C takes effect."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

__all__ = ["FinishStepFirst"]


class FinishStepFirst:
    """Within this context the first Ctrl-C only sets `requested`; a second one interrupts.

    Outside of the main thread, where signals cannot be caught, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: signal._HANDLER = None

    def __enter__(self) -> FinishStepFirst:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, signal.default_int_handler)
