"""Numbers as a reader wants them: AP in points, seconds in minutes, parameters in millions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "\u2013"
"""Stands where there is no value: an en dash."""

_MINUTE = 60
_HOUR = 3600
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


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

    def points(self) -> str:
        """A fraction in percent points, `55.3` or `55.3 ± 1.1`."""
        return with_sd(self.mean, self.sd, scale=100)


def sample(values: Sequence[float | None]) -> Sample | None:
    """The values that are known; None when there are none."""
    known = tuple(value for value in values if value is not None)
    return Sample(known) if known else None


def with_sd(mean: float, sd: float | None, *, scale: float = 1, digits: int = 1) -> str:
    """`55.3`, or `55.3 ± 1.1` where a deviation is known."""
    text = f"{_signed(mean * scale, digits)}"
    return text if sd is None else f"{text} ± {sd * scale:.{digits}f}"


def points(fraction: float) -> str:
    """A fraction in percent points with one decimal: `55.3`."""
    return _signed(fraction * 100, 1)


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


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _signed(value: float, digits: int) -> str:
    """With a true minus sign, and no minus before zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\u2212")
