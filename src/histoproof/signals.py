"""Being asked to stop: SIGTERM and SIGUSR1 (Slurm's warning) and Ctrl-C, noted and acted on between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Within the block a first signal is only noted in `requested`; a second Ctrl-C interrupts at once.

    Outside the main thread signals cannot be caught, and nothing is ever requested.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        """The signal's name, e.g. SIGTERM, once one came."""
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.name is not None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
            around = getattr(handler, "__self__", None)
            if self.name == number.name and isinstance(around, StopRequest):
                around.name = self.name  # what was asked of the part is asked of the whole

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
