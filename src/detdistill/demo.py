"""The whole story in minutes: a teacher, a student alone, the same student distilled, a report.

Everything is an ordinary run in an ordinary folder; the demo only says which, and in what order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detdistill import grid
from detdistill.errors import unknown_name
from detdistill.files import read_json, write_json
from detdistill.train.experiment import Experiment, Optimizer

TEACHER, STUDENT, EQUAL_COMPUTE = "teacher", "student", "student-equal-compute"
COSTLIEST = "crosskd+pkd"
"""The method whose compute the student alone is given in the control at equal compute."""

Methods = Mapping[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the demo trains: the numbers to tune are all here."""

    teacher: Experiment
    student: Experiment
    methods: Mapping[str, Methods] = field(
        default_factory=lambda: {
            "crosskd+pkd": {"crosskd": {}, "pkd": {}},
            "tid": {"tid": {}},
        }
    )


def _training(student: str, data: str, *, steps: int, lr: float) -> Experiment:
    """A training with a tenth of its steps for warm-up."""
    optimizer = Optimizer(lr=lr, warmup_steps=steps // 10)
    return Experiment(student=student, data=data, steps=steps, optimizer=optimizer)


def _budget(data: str, *, teacher_steps: int, student_steps: int) -> Budget:
    return Budget(
        teacher=_training("gfl-quick-w32", data, steps=teacher_steps, lr=2e-3),
        student=_training("gfl-quick-w8", data, steps=student_steps, lr=8e-3),
    )


BUDGETS: dict[str, Budget] = {
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
    jobs = first_jobs(BUDGETS[budget], folder)
    grid.run(jobs, overwrite=overwrite)
    grid.run([control(jobs, folder)], overwrite=overwrite)
    found = {"budget": budget, **summary(folder, BUDGETS[budget].methods)}
    write_json(folder / "summary.json", found)
    return found


def first_jobs(budget: Budget, folder: Path) -> list[grid.Job]:
    """The teacher, the student alone, and the student with each method."""
    teacher = grid.Job(name=TEACHER, experiment=budget.teacher, folder=folder / TEACHER)
    student = grid.Job(name=STUDENT, experiment=budget.student, folder=folder / STUDENT)
    distilled = [
        grid.Job(
            name=name,
            experiment=replace(budget.student, teacher=str(teacher.folder), methods=dict(methods)),
            folder=folder / name,
            after=(TEACHER,),
        )
        for name, methods in budget.methods.items()
    ]
    return [teacher, student, *distilled]


def control(jobs: Sequence[grid.Job], folder: Path) -> grid.Job:
    """The student alone, for as many steps as the costliest method's compute pays for.

    The teacher's forward pass is part of that compute, the teacher's own training is not.
    """
    alone = next(job.experiment for job in jobs if job.name == STUDENT)
    ratio = _step_cost(folder / COSTLIEST) / _step_cost(folder / STUDENT)
    longer = replace(alone, steps=max(alone.steps, round(alone.steps * ratio)))
    return grid.Job(name=EQUAL_COMPUTE, experiment=longer, folder=folder / EQUAL_COMPUTE)


def summary(folder: Path, methods: Iterable[str]) -> dict[str, Any]:
    """What the finished runs say, side by side."""
    teacher, student = _row(folder / TEACHER), _row(folder / STUDENT)
    rows = {name: _row(folder / name) for name in methods}
    closed = {
        name: gap_closed(row["AP"], student["AP"], teacher["AP"]) for name, row in rows.items()
    }
    return {
        "teacher": teacher,
        "student": student,
        "student_equal_compute": _row(folder / EQUAL_COMPUTE),
        "methods": {name: {**row, "gap_closed": closed[name]} for name, row in rows.items()},
        "gap_closed": closed,
    }


def gap_closed(ap: float, student: float, teacher: float) -> float | None:
    """The part of the way from student to teacher that was made; None if there is no way to go."""
    return (ap - student) / (teacher - student) if teacher > student else None


def _row(run: Path) -> dict[str, Any]:
    evaluation = read_json(run / "evaluation.json")
    shared = {key: evaluation[key] for key in ("step", "cost", "facts")}
    return {**evaluation["metrics"], **shared, "run": str(run)}


def _step_cost(run: Path) -> float:
    """What a step costs: processor time, or on a GPU time by the clock.

    Busy neighbours stretch the clock's time, not the processor's.
    """
    evaluation = read_json(run / "evaluation.json")
    if read_json(run / "environment.json")["gpu"]:
        return float(evaluation["cost"]["step_ms"])
    return float(evaluation["cost"]["cpu_seconds"]) / float(evaluation["step"])
