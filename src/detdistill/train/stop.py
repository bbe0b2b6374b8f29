"""Ctrl-C: the first one is a wish to stop, the second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRun(KeyboardInterrupt):
    """A run that was asked to stop and can go on; the message says how."""


class Stop:
    """Listens for Ctrl-C and SIGTERM while it is entered.

    Args:
        say: is told what will happen.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self.asked = False
        self.at_once = False
        """Whether the first signal stops at once, because there is nothing left to save."""
        self._say = say
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked or self.at_once:
            raise KeyboardInterrupt
        self.asked = True
        self._say("Stopping after this step; once more to stop at once, without saving.")
