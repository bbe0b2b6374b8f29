"""The bar picture: AP per arm on a common scale, the teacher as a line across."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detdistill.report import numbers
from detdistill.report.arms import Arm, Comparison, Role


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One arm; positions in percent of the scale."""

    label: str
    value: str
    distilled: bool
    end: float
    spread: tuple[float, float] | None
    """From mean - sd to mean + sd; None for a single run."""
    seeds: tuple[float, ...]
    """Where each seed stands, when there are several."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """All arms of a comparison but the teacher, and where its line stands."""

    bars: tuple[Bar, ...]
    top: int
    """AP at the right end of the scale, in points."""
    teacher: float | None
    teacher_value: str


def bars(comparison: Comparison) -> Bars:
    """Lays the students' AP out on a scale that ends at a round number."""
    highest = max((100 * value for arm in comparison.arms for value in _values(arm)), default=0.0)
    top = min(100, max(10, 10 * math.ceil(highest / 10)))
    teacher = comparison.measured_teacher
    return Bars(
        bars=tuple(_bar(arm, top) for arm in comparison.students if _values(arm)),
        top=top,
        teacher=_place(teacher.ap, top) if teacher else None,
        teacher_value=numbers.points(teacher.ap) if teacher else "",
    )


def _bar(arm: Arm, top: int) -> Bar:
    found = arm.metric("AP")
    mean, sd = arm.ap, found.sd if found else None
    values = _values(arm)
    return Bar(
        label=arm.label,
        value=found.points() if found else numbers.NOTHING,
        distilled=arm.role is Role.DISTILLED,
        end=_place(mean, top),
        spread=None if sd is None else (_place(mean - sd, top), _place(mean + sd, top)),
        seeds=tuple(_place(value, top) for value in values) if len(values) > 1 else (),
    )


def _values(arm: Arm) -> tuple[float, ...]:
    found = arm.metric("AP")
    return found.values if found else ()


def _place(fraction: float, top: int) -> float:
    return round(min(100.0, max(0.0, 100 * 100 * fraction / top)), 2)
