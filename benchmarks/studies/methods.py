"""Every method with its published weights, and tuned where these do nothing at this scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import mean, stdev

from benchmarks.studies.arms import arm, fitting
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Arm, Results, Table

from detdistill import methods
from detdistill.cli import hyperparameters

FAMILIES = ("gfl", "retinanet")
FACTORS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
"""What the published weights are multiplied with in a search."""

SEARCHED = (
    "One seed, on the tune split: what the published weights are multiplied with. The best of each "
    "method is its tuned row."
)


def study(budget: Budget, results: Results) -> Iterator[list[Table]]:
    """Published weights; then a search for those that gain nothing; then the tuned rows."""
    tables = [_published(budget, family) for family in FAMILIES]
    yield tables
    searches = [_search(table, results) for table in tables]
    yield [*tables, *searches]
    tuned = [
        replace(table, arms=(*table.arms, *_best(search, results)))
        for table, search in zip(tables, searches, strict=True)
    ]
    yield [*tuned, *(search for search in searches if search.arms)]


def _published(budget: Budget, family: str) -> Table:
    table = Table(
        title=f"{family}, every method",
        student=budget.student(f"{family}-quick-w8"),
        teacher=budget.teacher(f"{family}-quick-w32"),
    )
    return fitting(table, map(arm, methods.names()))


def _search(table: Table, results: Results) -> Table:
    """The rows that gain nothing, with other weights."""
    idle = [row for row in table.arms if _gains_nothing(table, row, results)]
    fixed = [row.name for row in idle if not _weights(row.name)]
    return Table(
        title=f"{table.title}: the search for weights",
        student=table.student,
        teacher=table.teacher,
        arms=tuple(
            _scaled(row, factor) for row in idle if row.name not in fixed for factor in FACTORS
        ),
        note=SEARCHED + (f" Without a weight to scale: {', '.join(fixed)}." if fixed else ""),
        split="tune",
    )


def _gains_nothing(table: Table, row: Arm, results: Results) -> bool:
    """Whether the mean gain is not above its standard deviation, or a training failed."""
    aps, alone = results.ap(table, row), results.ap(table, table.rows[0])
    if aps is None or alone is None:
        return True
    gains = [a - b for a, b in zip(aps, alone, strict=True)]
    return mean(gains) <= (stdev(gains) if len(gains) > 1 else 0.0)


def _weights(method: str) -> dict[str, float]:
    """The settings that multiply a method's losses, and their defaults."""
    return {
        setting.name: setting.default
        for setting in hyperparameters.of(methods.find(method))
        if setting.name.endswith("weight") and isinstance(setting.default, float)
    }


def _scaled(row: Arm, factor: float) -> Arm:
    weights = {name: factor * weight for name, weight in _weights(row.name).items()}
    return Arm(name=f"{row.name}, weights times {factor:g}", methods={row.name: weights})


def _best(search: Table, results: Results) -> list[Arm]:
    """The best row of each method of a search; none where the published weights are the best."""
    ranked = sorted(search.arms, key=lambda row: -max(results.ap(search, row) or [0.0]))
    best = {next(iter(row.methods)): row for row in reversed(ranked)}
    return [row for name, row in best.items() if row.methods != _scaled_by_one(name)]


def _scaled_by_one(method: str) -> dict[str, dict[str, float]]:
    return {method: _weights(method)}
