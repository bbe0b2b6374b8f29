"""The table of the built-in benchmark: every method, both controls, several seeds, two levels.

`python -m benchmarks.builtin` trains what is not there yet under `runs/builtin`, two at a time on
two cores, and writes `docs/results/builtin.md`. It can be stopped and started again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from detdistill import grid
from detdistill.demo import BUDGETS, gap_closed
from detdistill.files import read_json, write_text
from detdistill.train.experiment import Experiment

LEVELS = {"shapes": "4,000 labelled images", "shapes:few": "300 labelled images"}
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "fitnet": {"fitnet": {}},
    "pkd": {"pkd": {}},
    "crosskd": {"crosskd": {}},
    "crosskd+pkd": {"crosskd": {}, "pkd": {}},
    "tid": {"tid": {}},
}
ALONE, LONGER, TEACHER = "student alone", "student alone, equal compute", "teacher"
COSTLIEST = "crosskd+pkd"


@dataclass(frozen=True)
class Arm:
    """One row of the table: the runs of all seeds."""

    name: str
    runs: tuple[dict[str, Any], ...]

    def values(self, number: str) -> list[float]:
        """One COCO number of every seed, in percent."""
        return [100 * run["metrics"][number] for run in self.runs]

    @property
    def step_ms(self) -> float:
        """Milliseconds of a step."""
        return median(run["cost"]["step_ms"] for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of the training."""
        return mean(run["cost"]["cpu_seconds"] for run in self.runs)


def folder(root: Path, level: str, arm: str, seed: int) -> Path:
    """Where a run lies."""
    return root / level.replace(":", "-") / arm.replace(", ", "-").replace(" ", "-") / f"s{seed}"


def teacher_job(root: Path) -> grid.Job:
    """The teacher that all students learn from, trained on the plentiful labels."""
    return grid.Job(
        name=TEACHER,
        experiment=BUDGETS["small"].teacher,
        folder=folder(root, "shapes", TEACHER, 0),
    )


def student(level: str, seed: int) -> Experiment:
    """The student alone."""
    return replace(BUDGETS["small"].student, data=level, seed=seed)


def jobs(root: Path, seeds: Sequence[int]) -> Iterator[grid.Job]:
    """The teacher, and every arm at equal steps."""
    teacher = teacher_job(root)
    yield teacher
    for seed in seeds:
        for level in LEVELS:
            arms: Mapping[str, dict[str, dict[str, Any]]] = {ALONE: {}, **METHODS}
            for arm, methods in arms.items():
                alone = student(level, seed)
                distilled = replace(alone, teacher=str(teacher.folder), methods=methods)
                yield grid.Job(
                    name=f"{level} {arm} {seed}",
                    experiment=distilled if methods else alone,
                    folder=folder(root, level, arm, seed),
                    after=(TEACHER,) if methods else (),
                )


def controls(root: Path, seeds: Sequence[int]) -> Iterator[grid.Job]:
    """The student alone for as many steps as the costliest method's compute pays for."""
    for level in LEVELS:
        costliest = load(root, level, COSTLIEST, seeds).step_ms
        ratio = costliest / load(root, level, ALONE, seeds).step_ms
        for seed in seeds:
            alone = student(level, seed)
            yield grid.Job(
                name=f"{level} {LONGER} {seed}",
                experiment=replace(alone, steps=round(alone.steps * ratio)),
                folder=folder(root, level, LONGER, seed),
            )


def load(root: Path, level: str, arm: str, seeds: Sequence[int]) -> Arm:
    """A row's runs, read from their folders."""
    folders = (folder(root, level, arm, seed) for seed in seeds)
    return Arm(arm, tuple(read_json(run / "evaluation.json") for run in folders))


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def row(arm: Arm, alone: Arm, teacher: Arm) -> str:
    """One line of the table."""
    gain = [a - b for a, b in zip(arm.values("AP"), alone.values("AP"), strict=True)]
    means = [mean(rows.values("AP")) for rows in (arm, alone, teacher)]
    closed = gap_closed(*means)
    cells = [
        arm.name,
        " ".join(f"{value:.1f}" for value in arm.values("AP")),
        f"**{spread(arm.values('AP'))}**",
        "" if arm is alone else spread(gain),
        "" if arm is alone or closed is None else f"{closed:.0%}",
        *(spread(arm.values(number)) for number in ("AP50", "AP75", "APs", "AR100")),
        str(arm.runs[0]["step"]),
        f"{arm.step_ms:.0f}",
        f"{arm.cpu_seconds:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def table(root: Path, level: str, seeds: Sequence[int]) -> str:
    """One level as Markdown."""
    teacher = load(root, "shapes", TEACHER, (0,))
    alone = load(root, level, ALONE, seeds)
    arms = [alone, *(load(root, level, arm, seeds) for arm in (*METHODS, LONGER))]
    head = "arm | AP per seed | AP | paired gain | gap closed | AP50 | AP75 | APs | AR100 | steps"
    head = f"| {head} | ms a step | CPU s |"
    rule = "|---" * head.count(" | ") + "|---|"
    ap = teacher.values("AP")[0]
    title = f"## `{level}`: {LEVELS[level]} (teacher: {ap:.1f} AP)"
    return "\n".join([title, "", head, rule, *(row(arm, alone, teacher) for arm in arms)])


def main() -> None:
    """Trains, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/builtin"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results/builtin-table.md"))
    options = parser.parse_args()
    seeds = range(options.seeds)
    grid.run(list(jobs(options.runs, seeds)))
    grid.run(list(controls(options.runs, seeds)))
    tables = [table(options.runs, level, seeds) for level in LEVELS]
    write_text(options.out, "\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
