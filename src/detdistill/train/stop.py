"""Ctrl-C: the first one is a wish to stop, the second one stops at once."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)

NOTICE = b"\nStopping after this step; once more to stop at once, without saving.\n"


LAUNCHER = "TORCHELASTIC_RUN_ID"
"""Of the environment of ranks that torchrun or accelerate started."""
ECHO = 3.0
"""Seconds within which a launcher passes on Ctrl-C to ranks that the terminal has told already."""


class InterruptedRun(KeyboardInterrupt):
    """A run that was asked to stop and can go on; the message says how."""


class Stop:
    """Listens for Ctrl-C and SIGTERM while it is entered."""

    def __init__(self) -> None:
        self.asked = False
        self.at_once = False
        """Whether the first signal stops at once, because there is nothing left to save."""
        self._heard_at = -math.inf
        self._process = os.getpid()
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

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._hear_in_worker(number)
        elif LAUNCHER in os.environ and time.monotonic() < self._heard_at + ECHO:
            return
        elif self.asked or self.at_once:
            raise KeyboardInterrupt
        else:
            self.asked = True
            self._heard_at = time.monotonic()
            os.write(2, NOTICE)  # a signal may come in the middle of a print, which must not nest

    @staticmethod
    def _hear_in_worker(number: int) -> None:
        """Processes that load images inherit the handler; the one that trains will end them."""
        if number == signal.SIGTERM:
            raise SystemExit
