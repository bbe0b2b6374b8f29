"""What the training itself costs, evaluations left out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of wall and of processor time, counted only while it runs.

    Args:
        seconds: wall seconds that were counted before.
        cpu_seconds: likewise of processor time.
        lap: how many of the wall seconds belong to the lap that goes on.
    """

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0, lap: float = 0.0) -> None:
        self._wall = seconds
        self._cpu = cpu_seconds
        self._lap = seconds - lap
        self._since: tuple[float, float] | None = None

    @property
    def seconds(self) -> float:
        """Wall seconds."""
        return self._wall + (time.perf_counter() - self._since[0] if self._since else 0.0)

    @property
    def cpu_seconds(self) -> float:
        """Seconds of processor time of this process, over all its threads."""
        return self._cpu + (time.process_time() - self._since[1] if self._since else 0.0)

    @property
    def lap(self) -> float:
        """Wall seconds since the last `lap_ms`."""
        return self.seconds - self._lap

    @contextmanager
    def running(self) -> Iterator[None]:
        """What happens inside is counted."""
        self._since = (time.perf_counter(), time.process_time())
        try:
            yield
        finally:
            self._wall, self._cpu, self._since = self.seconds, self.cpu_seconds, None

    def lap_ms(self, steps: int) -> float:
        """Milliseconds per step, for `steps` steps since the last call."""
        seconds, self._lap = self.lap, self.seconds
        return 1000 * seconds / max(1, steps)
