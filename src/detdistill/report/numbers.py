"""Numbers as a reader wants them: AP in points, seconds in minutes, parameters in millions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from detdistill.report import student_t

NOTHING = "\u2013"
"""Stands where there is no value: an en dash."""

_MINUTE = 60
_HOUR = 3600
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Interval:
    """A range that holds the true value with 95 % confidence."""

    low: float
    high: float

    def points(self) -> str:
        """A range of fractions in percent points, `+1.2 to +3.4`."""
        return " to ".join(gained(bound) for bound in (self.low, self.high))

    @property
    def includes_zero(self) -> bool:
        """Whether there may be no effect."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Sample:
    """The same quantity from several runs."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The average."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """The standard deviation over runs (n - 1 below); unknown from a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """Of the mean, by Student's t; unknown from a single run."""
        if self.sd is None:
            return None
        size = len(self.values)
        margin = student_t.bound(size - 1) * self.sd / math.sqrt(size)
        return Interval(self.mean - margin, self.mean + margin)

    def points(self) -> str:
        """A fraction in percent points, `55.3` or `55.3 ± 1.1`."""
        return with_sd(self.mean, self.sd)


def sample(values: Sequence[float | None]) -> Sample | None:
    """The values that are known; None when there are none."""
    known = tuple(value for value in values if value is not None)
    return Sample(known) if known else None


def with_sd(mean: float, sd: float | None, *, sign: bool = False) -> str:
    """In percent points: `55.3`, or `55.3 ± 1.1` where a deviation is known; also `+55.3`."""
    text = _signed(mean * 100, 1, plus=sign)
    return text if sd is None else f"{text} ± {sd * 100:.1f}"


def points(fraction: float) -> str:
    """A fraction in percent points with one decimal: `55.3`."""
    return with_sd(fraction, None)


def gained(fraction: float) -> str:
    """A difference in percent points with its sign: `+1.2`."""
    return with_sd(fraction, None, sign=True)


def share(fraction: float) -> str:
    """A share in whole percent: `61 %`, with a space that does not break."""
    return f"{_signed(fraction * 100, 0)}\u00a0%"


def amount(value: float) -> str:
    """A large count with a unit prefix: `125.6 k`, `1.84 G`."""
    for size, prefix in _UNITS:
        if value >= size:
            return f"{value / size:.3g}\u00a0{prefix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 7 min`."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"  # noqa: PLR2004
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    minutes = round(seconds / _MINUTE)
    return f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`, `1,300 steps`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _signed(value: float, digits: int, *, plus: bool = False) -> str:
    """With a true minus sign, or a plus where it is asked for, and no sign before zero."""
    text = f"{value:+.{digits}f}" if plus else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")
