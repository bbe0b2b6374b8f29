"""Rows that several studies are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.studies.study import Arm, Results, Table

from detdistill import compare, fits, recipes


def arm(
    text: str, name: str | None = None, *, published: float | None = None, **settings: object
) -> Arm:
    """`arm("crosskd", cut=1)`; several methods as `crosskd+pkd`, without settings."""
    methods = {method: dict(settings) for method in text.split("+")}
    words = ", ".join(f"{setting} {value}" for setting, value in settings.items())
    written = f"{text} ({words})" if words else text
    return Arm(name=name or written, methods=methods, published=published)


def row(recipe: str, name: str) -> Arm:
    """A row of a paper's table: the methods of its small twin, and the published number."""
    paper = recipes.find(recipe).paper
    methods = recipes.load(paper.twin or recipe).get("methods", {})
    return Arm(name=name, methods=methods, published=paper.value)


def equal_compute(table: Table, row: Arm, results: Results, name: str) -> Arm:
    """The student alone for as many steps as a row's compute pays for."""
    alone, costlier = (results.folders(table, each) for each in (table.rows[0], row))
    return Arm(name=name, steps=compare.equal_compute_steps(table.student.steps, alone, costlier))


def fitting(table: Table, arms: Iterable[Arm]) -> Table:
    """The table with the rows that fit its pair; why the others do not stands below it."""
    if table.teacher is None:
        return table
    student, teacher = (fits.spec(training.student) for training in (table.student, table.teacher))
    kept, refused = list(table.arms), []
    for row in arms:
        reasons = [
            reason
            for name, settings in row.methods.items()
            if (reason := fits.refusal(name, settings, student=student, teacher=teacher))
        ]
        if reasons:
            refused.append(f"`{row.name}`: {reasons[0]}")
        else:
            kept.append(row)
    note = "Not possible here: " + " ".join(refused) if refused else ""
    words = "\n\n".join(filter(None, (table.note, note)))
    return replace(table, arms=tuple(kept), note=words)
