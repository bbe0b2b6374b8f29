"""Each family of detectors alone, as its own teacher, and distilled."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.studies.arms import arm, fitting
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Results, Table

from detdistill.detectors.presets import FAMILIES


def families(budget: Budget) -> Iterator[Table]:
    """A table per family."""
    for family in FAMILIES:
        table = Table(
            title=family,
            student=budget.student(f"{family}-quick-w8"),
            teacher=budget.teacher(f"{family}-quick-w32"),
        )
        yield fitting(table, [arm("crosskd"), arm("pkd")])


def study(budget: Budget, _results: Results) -> Iterator[list[Table]]:
    """All of them."""
    yield list(families(budget))
