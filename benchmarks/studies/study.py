"""What a study consists of: tables, their rows, and the papers' numbers beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.studies.pool import Pool

from detdistill.compare import Methods
from detdistill.train.experiment import Experiment

ALONE = "student alone"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row: the student, with these methods."""

    name: str
    methods: Methods = field(default_factory=dict)
    steps: int | None = None
    """Other than the student's."""
    cached: bool = False
    """Whether the teacher's answers are kept on disk and taken from there."""
    published: float | None = None
    """AP of the paper's row."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A student alone and the same student with methods, over the same seeds."""

    title: str
    student: Experiment
    teacher: Experiment | None = None
    class_map: Mapping[str, str | None] = field(default_factory=dict)
    """Of the teacher's classes to the student's, beside equal names."""
    arms: tuple[Arm, ...] = ()
    """Rows below the student alone."""
    published_alone: float | None = None
    """AP of the paper's student without distillation."""
    source: str = ""
    """Where the published numbers stand; the table is then asked whether their order holds."""
    note: str = ""
    """A paragraph below the table."""
    rated: bool = True
    """Whether the teacher's AP is of the student's classes, so that a share of the gap between the
    two says something."""
    split: Literal["tune", "test"] = "test"
    """What AP is of; `tune` is for choosing settings, with the first seed alone."""

    @property
    def rows(self) -> tuple[Arm, ...]:
        """All rows."""
        return (Arm(name=ALONE, published=self.published_alone), *self.arms)

    def seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """Those that are trained of the ones that were asked for."""
        return seeds if self.split == "test" else seeds[:1]

    def experiment(self, arm: Arm, seed: int, pool: Pool) -> Experiment:
        """One training of a row."""
        steps = arm.steps or self.student.steps
        chosen = replace(self.student, seed=seed, steps=steps)
        if self.split == "tune":
            chosen = replace(chosen, validate_every=steps)
        if not arm.methods or self.teacher is None:
            return chosen
        return replace(
            chosen,
            teacher=str(pool.folder(self.teacher)),
            teacher_cache=str(pool.cache(arm.name)) if arm.cached else None,
            class_map=dict(self.class_map),
            methods=dict(arm.methods),
        )


@dataclass(frozen=True, kw_only=True)
class Results:
    """The finished runs of a pool, for these seeds."""

    pool: Pool
    seeds: tuple[int, ...]

    def runs(self, table: Table, arm: Arm) -> list[dict[str, Any]] | None:
        """A row's evaluations, one per seed; None if a training of it failed."""
        found = [self.pool.evaluation(experiment) for experiment in self._experiments(table, arm)]
        return None if None in found else [run for run in found if run is not None]

    def folders(self, table: Table, arm: Arm) -> list[Path]:
        """A row's run folders, one per seed."""
        return [self.pool.folder(experiment) for experiment in self._experiments(table, arm)]

    def ap(self, table: Table, arm: Arm) -> list[float] | None:
        """AP in percent of every seed on the table's split; None if a training failed."""
        runs = self.runs(table, arm)
        return runs and [100 * run[table.split]["AP"] for run in runs]

    def _experiments(self, table: Table, arm: Arm) -> list[Experiment]:
        return [table.experiment(arm, seed, self.pool) for seed in table.seeds(self.seeds)]
