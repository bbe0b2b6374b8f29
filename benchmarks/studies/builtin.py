"""The built-in benchmark: the defaults and the published settings, with controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.studies.arms import arm, row
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Arm, Results, Table

from detdistill import compare, data, recipes
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment

PLENTY, FEW = "4,000 labelled images", "300 labelled images"
COSTLIEST = arm("crosskd+pkd")


def defaults(budget: Budget, results: Results) -> Iterator[list[Table]]:
    """Several methods with plenty of labels and with few; then the student alone for longer."""
    student = budget.student("gfl-quick-w8")
    rows = (*map(arm, ("fitnet", "pkd", "crosskd")), COSTLIEST, arm("tid"))
    tables = [
        Table(
            title=title,
            student=replace(student, data=name),
            teacher=budget.teacher("gfl-quick-w32"),
            arms=rows,
        )
        for title, name in ((PLENTY, budget.data), (FEW, "shapes:few"))
    ]
    yield tables
    yield [replace(table, arms=(*rows, _equal_compute(table, results))) for table in tables]


def _equal_compute(table: Table, results: Results) -> Arm:
    """The student alone for as many steps as the costliest row's compute pays for."""
    alone, costliest = (results.folders(table, row) for row in (table.rows[0], COSTLIEST))
    steps = compare.equal_compute_steps(table.student.steps, alone, costliest)
    return Arm(name="student alone, equal compute", steps=steps)


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
