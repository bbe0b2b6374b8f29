"""What a teacher that remembers is worth: costs with it, and who then wins at equal compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from benchmarks.studies.arms import arm, equal_compute
from benchmarks.studies.budgets import Budget
from benchmarks.studies.builtin import plenty_and_few
from benchmarks.studies.study import Arm, Results, Table

METHODS = ("fitnet", "pkd", "crosskd", "crosskd+pkd")


def study(budget: Budget, results: Results) -> Iterator[list[Table]]:
    """Each method as ever and with the cache; then the student alone for as long as that takes.

    The seeds fill the cache one after the other, so its making is part of the cost.
    """
    cached = {
        method: replace(arm(method), name=f"{method}, cached", cached=True) for method in METHODS
    }
    tables = plenty_and_few(budget, [*map(arm, METHODS), *cached.values()])
    yield tables
    yield [
        replace(table, arms=(*table.arms, *_controls(table, results, cached.values())))
        for table in tables
    ]


def _controls(table: Table, results: Results, rows: Iterable[Arm]) -> list[Arm]:
    return [
        equal_compute(table, row, results, f"student alone, as long as {row.name}") for row in rows
    ]
