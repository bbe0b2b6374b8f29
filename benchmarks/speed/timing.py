"""Times things in turns, so that a slow moment of the machine falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Case = Callable[[], object]
Clock = Callable[[], float]
Times = dict[str, list[float]]
"""Milliseconds of every round, by case."""

CLOCKS: Mapping[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Processor time is what to compare on a machine that others use, with one thread."""
WARM_UP = 1


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The middle of some numbers, and how far they scatter."""

    median: float
    low: float
    """10th percentile."""
    high: float
    """90th percentile."""

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """Of at least one number."""
        tenths = statistics.quantiles([*numbers, *numbers], n=10, method="inclusive")
        rounded = (round(x, 4) for x in (statistics.median(numbers), tenths[0], tenths[-1]))
        median, low, high = rounded
        return cls(median=median, low=low, high=high)


def in_turns(cases: Mapping[str, Case], rounds: int, clock: Clock) -> Times:
    """Every case in every round; rounds to warm up come first and do not count."""
    times: Times = {name: [] for name in cases}
    for number in range(-WARM_UP, rounds):
        for name, run in cases.items():
            took = _milliseconds(run, clock)
            if number >= 0:
                times[name].append(took)
    return times


def _milliseconds(run: Case, clock: Clock) -> float:
    _wait()
    start = clock()
    run()
    _wait()
    return (clock() - start) * 1e3


def _wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
