"""Where the runs of all studies lie: a training that two studies share is made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from detdistill import grid, progress, run_files
from detdistill.files import read_json
from detdistill.train import experiment as experiments
from detdistill.train.assembly import resolved
from detdistill.train.experiment import Experiment


@dataclass(frozen=True)
class Pool:
    """Run folders named after what was trained in them."""

    root: Path

    def folder(self, experiment: Experiment) -> Path:
        """`gfl-quick-w8-pkd-1f3a5c7e/s0`: student, methods, a digest of all settings, the seed."""
        words = [experiment.student, "+".join(experiment.methods) or "alone", _digest(experiment)]
        return self.root / "-".join(words) / f"s{experiment.seed}"

    def cache(self, arm: str) -> Path:
        """Where a row's teacher is remembered: its own place, so that others do not fill it."""
        return self.root / "caches" / arm.replace(", ", "-")

    def job(self, experiment: Experiment) -> grid.Job:
        """Its training, behind its teacher's."""
        folder = self.folder(experiment)
        after = (self._name(Path(experiment.teacher)),) if experiment.teacher else ()
        return grid.Job(name=self._name(folder), experiment=experiment, folder=folder, after=after)

    def evaluation(self, experiment: Experiment) -> dict[str, Any] | None:
        """What a finished run measured, its metrics by split; None for a failed one."""
        folder = self.folder(experiment)
        if self.has_failed(experiment):
            return None
        found = read_json(folder / run_files.EVALUATION)
        return {**found, "test": found["metrics"], "tune": _last_validation(folder)}

    def has_failed(self, experiment: Experiment) -> bool:
        """Whether its training broke off."""
        return progress.read(self.folder(experiment)).state == "failed"

    def _name(self, folder: Path) -> str:
        return str(folder.relative_to(self.root))


def _digest(experiment: Experiment) -> str:
    """Of every setting but the seed; a teacher counts by its own digest, wherever it lies."""
    teacher = experiment.teacher and "/".join(Path(experiment.teacher).parts[-2:])
    cache = experiment.teacher_cache and Path(experiment.teacher_cache).name
    same = replace(resolved(experiment), teacher=teacher, teacher_cache=cache, seed=0)
    settings = experiments.to_dict(same)
    return sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def _last_validation(folder: Path) -> dict[str, Any]:
    """The metrics on the tune split after the last step; empty if nobody asked for them."""
    lines = (folder / run_files.METRICS).read_text(encoding="utf-8").splitlines()
    validations: Iterator[dict[str, Any]] = (
        entry["metrics"] for entry in map(json.loads, reversed(lines)) if entry["kind"] == "eval"
    )
    return next(validations, {})
