"""The tables of the built-in benchmark: methods, controls and seeds, on several data sets.

`python -m benchmarks.builtin defaults` trains what is not there yet under `runs/builtin`, two at a
time on two cores, and writes `docs/results/tables/defaults.md`. It can be stopped and started
again. `published` does the same with the settings that the official implementation was measured
with, on the built-in pictures and on the same pictures as a COCO folder of JPEG files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from detdistill import data, grid, recipes
from detdistill.demo import BUDGETS, gap_closed
from detdistill.files import read_json, write_text
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment

Methods = Mapping[str, dict[str, Any]]

ALONE, LONGER, TEACHER = "student alone", "student alone, equal compute", "teacher"
COSTLIEST = "crosskd+pkd"
COLUMNS = (
    "arm",
    "AP per seed",
    "AP",
    "paired gain",
    "gap closed",
    "AP50",
    "AP75",
    "APs",
    "AR100",
    "steps",
    "ms a step",
    "CPU s",
)


@dataclass(frozen=True, kw_only=True)
class Level:
    """Training data for the students, and for their teacher."""

    title: str
    data: str
    taught_on: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is trained for one table per level."""

    teacher: Experiment
    student: Experiment
    levels: tuple[Level, ...]
    methods: Mapping[str, Methods]
    control: bool
    """Whether the student alone is also trained at equal compute."""


def studies(root: Path) -> dict[str, Study]:
    """By name; `root` gets the COCO folder."""
    plenty = Level(title="4,000 labelled images", data="shapes", taught_on="shapes")
    few = Level(title="300 labelled images", data="shapes:few", taught_on="shapes")
    files = f"coco:{root / 'shapes-as-coco'}"
    coco = Level(title="the same images as a COCO folder", data=files, taught_on=files)
    both: dict[str, Methods] = {
        "crosskd": {"crosskd": {}},
        "crosskd+pkd": {"crosskd": {}, "pkd": {}},
    }
    necks: dict[str, Methods] = {"fitnet": {"fitnet": {}}, "pkd": {"pkd": {}}}
    return {
        "defaults": Study(
            teacher=of_length(BUDGETS["small"].teacher, 2000),
            student=of_length(BUDGETS["small"].student, 1000),
            levels=(plenty, few),
            methods={**necks, **both, "tid": {"tid": {}}},
            control=True,
        ),
        "published": Study(
            teacher=experiments.from_dict(recipes.load("benchmark/teacher")),
            student=experiments.from_dict(recipes.load("benchmark/student")),
            levels=(plenty, coco),
            methods=both,
            control=False,
        ),
    }


def of_length(training: Experiment, steps: int) -> Experiment:
    """The same training with more or fewer steps, a tenth of them for warm-up."""
    optimizer = replace(training.optimizer, warmup_steps=steps // 10)
    return replace(training, steps=steps, optimizer=optimizer)


@dataclass(frozen=True)
class Arm:
    """One row of the table: the runs of all seeds."""

    name: str
    runs: tuple[dict[str, Any], ...]

    def values(self, number: str) -> list[float]:
        """One COCO number of every seed, in percent."""
        return [100 * run["metrics"][number] for run in self.runs]

    def cost(self, name: str) -> list[float]:
        """One cost of every seed."""
        return [run["cost"][name] for run in self.runs]


def folder(root: Path, level: str, arm: str, seed: int) -> Path:
    """Where a run lies."""
    place = "coco" if level.startswith("coco:") else level.replace(":", "-")
    return root / place / arm.replace(", ", "-").replace(" ", "-") / f"s{seed}"


def jobs(study: Study, root: Path, seeds: Sequence[int]) -> Iterator[grid.Job]:
    """The teachers, and every arm at equal steps."""
    for taught_on in dict.fromkeys(level.taught_on for level in study.levels):
        yield grid.Job(
            name=f"{TEACHER} {taught_on}",
            experiment=replace(study.teacher, data=taught_on),
            folder=folder(root, taught_on, TEACHER, 0),
        )
    arms: Mapping[str, Methods] = {ALONE: {}, **study.methods}
    for seed in seeds:
        for level in study.levels:
            teacher = str(folder(root, level.taught_on, TEACHER, 0))
            alone = replace(study.student, data=level.data, seed=seed)
            for arm, methods in arms.items():
                distilled = replace(alone, teacher=teacher, methods=dict(methods))
                yield grid.Job(
                    name=f"{level.data} {arm} {seed}",
                    experiment=distilled if methods else alone,
                    folder=folder(root, level.data, arm, seed),
                    after=(f"{TEACHER} {level.taught_on}",) if methods else (),
                )


def controls(study: Study, root: Path, seeds: Sequence[int]) -> Iterator[grid.Job]:
    """The student alone for as many steps as the costliest method's compute pays for."""
    for level in study.levels if study.control else ():
        costs = [
            load(root, level.data, arm, seeds).cost("cpu_seconds") for arm in (COSTLIEST, ALONE)
        ]
        steps = round(study.student.steps * median(costs[0]) / median(costs[1]))
        for seed in seeds:
            yield grid.Job(
                name=f"{level.data} {LONGER} {seed}",
                experiment=replace(study.student, data=level.data, seed=seed, steps=steps),
                folder=folder(root, level.data, LONGER, seed),
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
        f"{median(arm.cost('step_ms')):.0f}",
        f"{mean(arm.cost('cpu_seconds')):.0f}",
    ]
    return _line(cells)


def table(study: Study, level: Level, root: Path, seeds: Sequence[int]) -> str:
    """One level as Markdown."""
    teacher = load(root, level.taught_on, TEACHER, (0,))
    alone = load(root, level.data, ALONE, seeds)
    names = [*study.methods, *([LONGER] if study.control else [])]
    arms = [alone, *(load(root, level.data, name, seeds) for name in names)]
    title = f"## {level.title[0].upper()}{level.title[1:]}"
    taught = f"Teacher: {teacher.values('AP')[0]:.1f} AP ({teacher.runs[0]['step']} steps)."
    rows = [row(arm, alone, teacher) for arm in arms]
    return "\n".join([title, "", taught, "", _line(COLUMNS), "|---" * len(COLUMNS) + "|", *rows])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Trains, and writes the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", choices=("defaults", "published"))
    parser.add_argument("--runs", type=Path, default=Path("runs/builtin"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results/tables"))
    options = parser.parse_args()
    study, seeds = studies(options.runs)[options.study], range(options.seeds)
    root = options.runs / options.study
    pictures = options.runs / "shapes-as-coco"
    if not pictures.exists() and any(level.data.startswith("coco:") for level in study.levels):
        data.shapes.write_coco(pictures)
    grid.run(list(jobs(study, root, seeds)))
    grid.run(list(controls(study, root, seeds)))
    tables = [table(study, level, root, seeds) for level in study.levels]
    write_text(options.out / f"{options.study}.md", "\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
