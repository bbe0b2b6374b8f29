"""The whole story in minutes: a teacher, a student alone, the same student distilled, a report.

It is a comparison at one seed of which everything is chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detdistill import compare, run_files
from detdistill.compare import ALONE, Pair, Plan
from detdistill.errors import UserError, unknown_name
from detdistill.files import read_json, write_json
from detdistill.report.arms import gap_closed
from detdistill.train.experiment import Experiment, Optimizer

METHODS: dict[str, compare.Methods] = {
    "crosskd+pkd": {"crosskd": {}, "pkd": {}},
    "tid": {"tid": {}},
}


def _training(student: str, data: str, *, steps: int, lr: float) -> Experiment:
    training = Experiment(student=student, data=data, optimizer=Optimizer(lr=lr))
    return compare.with_steps(training, steps)


def _budget(data: str, *, teacher_steps: int, student_steps: int) -> Plan:
    pair = Pair(
        teacher=_training("gfl-quick-w32", data, steps=teacher_steps, lr=2e-3),
        student=_training("gfl-quick-w8", data, steps=student_steps, lr=8e-3),
    )
    return Plan(pairs=(pair,), methods=METHODS, seeds=(0,))


BUDGETS: dict[str, Plan] = {
    "tiny": _budget("shapes:tiny", teacher_steps=300, student_steps=200),
    "small": _budget("shapes", teacher_steps=1600, student_steps=800),
}
"""On two cores `tiny` is over within 90 seconds, `small` within ten minutes."""


def run(budget: str, folder: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Trains everything that is not there yet.

    Args:
        budget: a name of `BUDGETS`.
        folder: gets a run folder for each training, and `summary.json`.
        overwrite: train anew what is there already.

    Returns:
        The summary: COCO numbers and costs of the teacher, of the student alone at equal steps and
        at equal compute, and of each method with the share of the teacher's gap that it closed.

    Raises:
        UserError: there is no such budget, a training failed, or the folder holds other runs.
    """
    if budget not in BUDGETS:
        raise unknown_name("budget", budget, BUDGETS)
    plan = BUDGETS[budget]
    outcome = compare.run(plan, folder, overwrite=overwrite)
    if outcome.failed:
        raise UserError(outcome.failed[0])
    found = {"budget": budget, **summary(plan, folder, outcome.finished)}
    write_json(folder / run_files.SUMMARY, found)
    return found


def summary(plan: Plan, folder: Path, finished: tuple[Path, ...]) -> dict[str, Any]:
    """What the finished runs, the control at equal compute last, say side by side."""
    (pair,), (seed,) = plan.pairs, plan.seeds
    teacher = _row(compare.teacher_folder(pair, folder))
    student, *distilled = (
        _row(compare.student_folder(pair, name, seed, folder)) for name in (ALONE, *plan.methods)
    )
    rows = dict(zip(plan.methods, distilled, strict=True))
    closed = {
        name: gap_closed(row["AP"], student["AP"], teacher["AP"]) for name, row in rows.items()
    }
    return {
        "teacher": teacher,
        "student": student,
        "student_equal_compute": _row(finished[-1]),
        "methods": {name: {**row, "gap_closed": closed[name]} for name, row in rows.items()},
        "gap_closed": closed,
    }


def _row(run: Path) -> dict[str, Any]:
    evaluation = read_json(run / run_files.EVALUATION)
    shared = {key: evaluation[key] for key in ("step", "cost", "facts")}
    return {**evaluation["metrics"], **shared, "run": str(run)}
