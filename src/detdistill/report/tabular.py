"""The same results for other programs and other pages: Markdown tables, and raw numbers as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detdistill.report.arms import Arm, Comparison, Role
from detdistill.report.numbers import Interval, sample
from detdistill.report.table import ACCURACY, Body, Table

_FACTS = ("parameters", "flops", "flops_per_multiply_add", "peak_tensor_mb")
_COSTS = ("step_ms", "seconds", "cpu_seconds", "peak_memory_mb")

Values = dict[str, Any]


def rows(comparisons: Sequence[Comparison]) -> list[Values]:
    """A row per arm: raw numbers, accuracies as fractions; None where something is unknown."""
    return [_row(comparison, arm) for comparison in comparisons for arm in comparison.arms]


def as_csv(found: Sequence[Mapping[str, Any]]) -> str:
    """Rows as comma-separated values, unknown ones left empty; all columns that a row has."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in found for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def as_markdown(tables: Sequence[Table], remarks: Sequence[str]) -> str:
    """Every table with its caption, then the remarks as a list."""
    parts = [part for table in tables for part in _sections(table)]
    return "\n\n".join([*parts, "\n".join(f"- {remark}" for remark in remarks)]) + "\n"


def _row(comparison: Comparison, arm: Arm) -> Values:
    return {
        "data": comparison.data,
        "images": comparison.images,
        "student": comparison.student,
        "row": arm.label,
        "role": arm.role.name.lower(),
        "detector": arm.first.student,
        "seeds": " ".join(map(str, arm.seeds)),
        "steps": arm.first.steps,
        **_accuracy(arm),
        **_gain(comparison, arm),
        **_size_and_speed(arm),
        **{name: _mean([run.cost(name) for run in arm.runs]) for name in _COSTS},
        "step_cost": comparison.step_ratio(arm) if arm.role is not Role.TEACHER else None,
    }


def _accuracy(arm: Arm) -> Values:
    found = {name: arm.metric(name) for name in ACCURACY}
    means = {name: value and value.mean for name, value in found.items()}
    return {**means, **{f"{name}_sd": value and value.sd for name, value in found.items()}}


def _gain(comparison: Comparison, arm: Arm) -> Values:
    taught = arm.role is Role.DISTILLED
    gain = comparison.gain(arm) if taught else None
    return {
        "gain": gain and gain.mean,
        "gain_sd": gain and gain.sd,
        **_bounds("gain_seeds", gain.interval if gain else None),
        **_bounds("gain_images", comparison.gain_over_images(arm) if taught else None),
        "resamples": comparison.resamples if taught else None,
        "gap_closed": comparison.gap_closed(arm) if taught else None,
    }


def _bounds(name: str, interval: Interval | None) -> Values:
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _size_and_speed(arm: Arm) -> Values:
    latency = dict(zip(("median", "low", "high"), arm.first.latency or (None,) * 3, strict=True))
    return {
        **{name: _mean([run.fact(name) for run in arm.runs]) for name in _FACTS},
        **{f"latency_ms_{name}": value for name, value in latency.items()},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    found = sample(values)
    return found.mean if found else None


def _sections(table: Table) -> Iterator[str]:
    yield f"**{table.caption}**"
    for body in table.bodies:
        if len(table.bodies) > 1:
            yield f"*{body.heading}*"
        yield _grid(table, body)


def _grid(table: Table, body: Body) -> str:
    head = ["", *(column.name for column in table.columns)]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in body.rows:
        name = f"{row.label} ({row.detail})" if row.detail else row.label
        cells = (f"**{cell.text}**" if cell.best else cell.text for cell in row.cells)
        lines.append(_line([name, *cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
