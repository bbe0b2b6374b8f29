"""The built-in benchmark: the defaults and the published settings, with controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.studies.arms import arm, equal_compute, row
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Arm, Results, Table

from detdistill import data, recipes
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment

PLENTY, FEW = "4,000 labelled images", "300 labelled images"
COSTLIEST = arm("crosskd+pkd")


def defaults(budget: Budget, results: Results) -> Iterator[list[Table]]:
    """Several methods with plenty of labels and with few; then the student alone for longer."""
    rows = (*map(arm, ("fitnet", "pkd", "crosskd")), COSTLIEST, arm("tid"))
    tables = plenty_and_few(budget, rows)
    yield tables
    yield [replace(table, arms=(*rows, _control(table, results))) for table in tables]


def plenty_and_few(budget: Budget, rows: Sequence[Arm]) -> list[Table]:
    """The same rows with plenty of labels, and with few."""
    student = budget.student("gfl-quick-w8")
    return [
        Table(
            title=title,
            student=replace(student, data=name),
            teacher=budget.teacher("gfl-quick-w32"),
            arms=tuple(rows),
        )
        for title, name in ((PLENTY, budget.data), (FEW, "shapes:few"))
    ]


def _control(table: Table, results: Results) -> Arm:
    return equal_compute(table, COSTLIEST, results, "student alone, equal compute")


def published(_budget: Budget, results: Results) -> Iterator[list[Table]]:
    """The settings that the official implementation was measured with, also on files."""
    folder = results.pool.root / "shapes-as-coco"
    if not folder.exists():
        data.shapes.write(folder)
    both = ((PLENTY, "shapes"), ("The same images as a COCO folder", f"coco:{folder}"))
    yield [
        Table(
            title=title,
            student=_recipe("student", name),
            teacher=_recipe("teacher", name),
            arms=tuple(row(f"benchmark/{name}", name) for name in ("crosskd", "crosskd+pkd")),
        )
        for title, name in both
    ]


def _recipe(name: str, pictures: str) -> Experiment:
    """A training of the recipes, on these pictures."""
    return replace(experiments.from_dict(recipes.load(f"benchmark/{name}")), data=pictures)
