"""Tables as Markdown, from run folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median, stdev
from typing import Any

from benchmarks.studies.ordering import verdict
from benchmarks.studies.study import ALONE, Arm, Results, Table

from detdistill.report.arms import gap_closed
from detdistill.train.experiment import Experiment

Run = dict[str, Any]

COLUMNS = (
    "arm",
    "AP per seed",
    "AP",
    "paired gain",
    "gap closed",
    "AP50",
    "AP75",
    "APs",
    "steps",
    "CPU ms a step",
    "peak MB",
    "CPU s",
)
PAPER = "paper's AP"


def page(tables: Sequence[Table], results: Results) -> str:
    """All tables of a study."""
    return "\n\n".join(section(table, results) for table in tables) + "\n"


def section(table: Table, results: Results) -> str:
    """One table with its title, its budget, and what it says of the paper's order."""
    columns = (*COLUMNS, PAPER) if table.source else COLUMNS
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(_cells(table, arm, results))} |" for arm in table.rows]
    parts = [f"## {table.title}", _budget(table, results), "\n".join(lines)]
    return "\n\n".join([*parts, *filter(None, (_order(table, results), table.note))])


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean and standard deviation."""
    middle = f"{mean(values):.{digits}f}"
    return f"{middle} ± {stdev(values):.{digits}f}" if len(values) > 1 else middle


def _cells(table: Table, arm: Arm, results: Results) -> list[str]:
    runs = results.runs(table, arm)
    paper = [_number(arm.published)] if table.source else []
    if runs is None:
        return [arm.name, "failed", *[""] * (len(COLUMNS) - 2), *paper]
    aps = results.ap(table, arm) or []
    return [
        arm.name,
        " ".join(f"{ap:.1f}" for ap in aps),
        f"**{spread(aps)}**",
        *_against_alone(table, arm, results),
        *(spread(_percent(runs, table, name)) for name in ("AP50", "AP75", "APs")),
        str(runs[0]["step"]),
        *_costs(runs, results.runs(table, table.rows[0]) if arm.name != ALONE else None),
        f"{mean(run['cost']['cpu_seconds'] for run in runs):.0f}",
        *paper,
    ]


def _percent(runs: Sequence[Run], table: Table, name: str) -> list[float]:
    return [100 * run[table.split][name] for run in runs]


def _against_alone(table: Table, arm: Arm, results: Results) -> tuple[str, str]:
    """The gain over the same seed alone, and its share of the way to the teacher."""
    aps, alone = results.ap(table, arm), results.ap(table, table.rows[0])
    if arm.name == ALONE or aps is None or alone is None:
        return "", ""
    gain = spread([a - b for a, b in zip(aps, alone, strict=True)])
    best = _teacher_ap(table, results) if table.split == "test" and table.rated else None
    closed = None if best is None else gap_closed(mean(aps) / 100, mean(alone) / 100, best / 100)
    return gain, "" if closed is None else f"{closed:.0%}"


def _costs(runs: Sequence[Run], alone: Sequence[Run] | None) -> tuple[str, str]:
    """Processor time and memory; of the student alone in full, of others what they add to it."""
    time, memory = _step_ms(runs), _memory(runs)
    if alone is None:
        return f"{time:.0f}", f"{memory:.0f}"
    return f"{time - _step_ms(alone):+.0f}", f"{memory - _memory(alone):+.0f}"


def _step_ms(runs: Sequence[Run]) -> float:
    return median(1e3 * run["cost"]["cpu_seconds"] / run["step"] for run in runs)


def _memory(runs: Sequence[Run]) -> float:
    return median(run["cost"]["peak_memory_mb"] for run in runs)


def _budget(table: Table, results: Results) -> str:
    """Who was trained on what for how long."""
    student, seeds = table.student, table.seeds(results.seeds)
    images = f", {student.images} images" if student.images else ""
    who = f"Student: {_training(student)} on `{student.data}`{images}"
    words = [f"{who}; seeds {', '.join(map(str, seeds))}; AP on the {table.split} split."]
    ap = _teacher_ap(table, results)
    if table.teacher and ap is not None:
        where = "" if table.teacher.data == student.data else f" on `{table.teacher.data}`"
        words.append(f"Teacher: {_training(table.teacher)}{where}; {ap:.1f} AP.")
    return " ".join(words)


def _training(experiment: Experiment) -> str:
    return (
        f"`{experiment.student}`, {experiment.steps} steps of {experiment.batch_size} images, "
        f"peak learning rate {experiment.optimizer.lr:g}"
    )


def _teacher_ap(table: Table, results: Results) -> float | None:
    """The teacher's AP in percent; None without a teacher, or if its training failed."""
    found = table.teacher and results.pool.evaluation(table.teacher)
    return 100 * found["test"]["AP"] if found else None


def _order(table: Table, results: Results) -> str:
    """Whether the paper's order holds; empty where there is no paper to compare with."""
    if not table.source:
        return ""
    published = {arm.name: arm.published for arm in table.rows if arm.published is not None}
    measured = {arm.name: results.ap(table, arm) for arm in table.rows}
    finished = {name: aps for name, aps in measured.items() if aps is not None}
    return f"{verdict(published, finished)} The paper's numbers: {table.source}."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
