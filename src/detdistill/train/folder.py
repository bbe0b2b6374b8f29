"""The run folder: what may be written where, and what is there already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detdistill import run_files
from detdistill.errors import UserError
from detdistill.files import read_json, require_writable, temporaries, write_json, write_text
from detdistill.train import checkpoint, environment
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment

State = Literal["running", "finished", "interrupted", "failed"]

CONTENT = (
    run_files.EXPERIMENT,
    run_files.ENVIRONMENT,
    run_files.STATUS,
    run_files.METRICS,
    run_files.LOG,
    run_files.CHECKPOINTS,
    run_files.SNAPSHOTS,
    run_files.TENSORBOARD,
    run_files.STUDENT,
    run_files.CARD,
    run_files.DETECTIONS,
    run_files.EVALUATION,
    run_files.FIGURES,
    run_files.REPORT,
)
"""What a run writes. To overwrite, the last is removed first: a folder that a kill leaves half
cleared is still a run folder.
"""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def experiment(self) -> Path:
        """The resolved experiment, which makes this a run folder."""
        return self.path / run_files.EXPERIMENT

    @property
    def metrics(self) -> Path:
        """One JSON object per line."""
        return self.path / run_files.METRICS

    @property
    def log(self) -> Path:
        """What was said."""
        return self.path / run_files.LOG

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.path / run_files.CHECKPOINTS / "last"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation, if there were any."""
        return self.path / run_files.CHECKPOINTS / "best"

    def snapshot(self, step: int) -> Path:
        """The student after so many steps, if it is kept."""
        return self.path / run_files.SNAPSHOTS / f"step-{step:06}.safetensors"

    def snapshots(self) -> dict[int, Path]:
        """The students that were kept, by the steps that they had learned."""
        files = sorted((self.path / run_files.SNAPSHOTS).glob("step-*.safetensors"))
        return {int(file.stem.removeprefix("step-")): file for file in files}

    @property
    def student(self) -> Path:
        """The trained detector."""
        return self.path / run_files.STUDENT

    @property
    def detections(self) -> Path:
        """COCO results on the test split."""
        return self.path / run_files.DETECTIONS

    @property
    def evaluation(self) -> Path:
        """The final numbers."""
        return self.path / run_files.EVALUATION

    @property
    def is_finished(self) -> bool:
        """Whether a run has come to its end here."""
        status = self.path / run_files.STATUS
        return (
            self.evaluation.exists()
            and status.exists()
            and read_json(status)["state"] == "finished"
        )

    def admit(self, experiment: Experiment, *, resume: bool, overwrite: bool) -> None:
        """Refuses a folder that this experiment must not write to. Changes nothing.

        Raises:
            UserError: it cannot be written to, holds something else, or holds a run that is
                neither to be resumed nor to be overwritten.
        """
        if resume and overwrite:
            raise UserError("resume and overwrite exclude each other: choose one.")
        require_writable(self.experiment)
        if not self.path.exists() or set(self.path.iterdir()) <= set(temporaries(self.path)):
            return
        if not self.experiment.exists():
            raise UserError(
                f"{self.path} is not empty and is not a run folder. Choose another folder."
            )
        if resume:
            self._check_same(experiment)
        elif not overwrite:
            raise UserError(
                f"{self.path} holds a run already. Use resume to go on with it, overwrite to "
                "replace it, or choose another folder."
            )

    def spare(self, checkpoints: Iterable[str]) -> None:
        """Refuses to overwrite a run that the new one starts from or learns from.

        Raises:
            UserError: one of the checkpoints would be lost.
        """
        lost = [self.path.resolve(), *((self.path / name).resolve() for name in CONTENT)]
        for name in checkpoints:
            file = Path(name).resolve()
            if file == lost[0] or not set(lost[1:]).isdisjoint((file, *file.parents)):
                raise UserError(
                    f"{self.path} holds {name}, which the run needs and would overwrite. "
                    "Choose another folder."
                )

    def prepare(self, experiment: Experiment, *, overwrite: bool) -> None:
        """Creates or clears the folder; a run that is there is kept unless `overwrite`."""
        for folder in (self.path, self.path / run_files.SNAPSHOTS):
            for file in temporaries(folder):
                file.unlink(missing_ok=True)
        if overwrite:
            self._clear()
        if self.experiment.exists():
            for folder in (self.last, self.best):
                checkpoint.settle(folder)
            self._note_resumed()
        else:
            experiments.save(experiment, self.experiment)
            write_json(self.path / run_files.ENVIRONMENT, environment.describe())

    def set_status(self, state: State, *, step: int, steps: int) -> None:
        """Writes what the run is doing."""
        write_json(self.path / run_files.STATUS, {"state": state, "step": step, "steps": steps})

    def truncate_metrics(self, step: int) -> None:
        """Forgets what was measured after `step`, and half a line that a kill left."""
        if self.metrics.exists():
            lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if _is_until(line, step)]
            write_text(self.metrics, "".join(kept))

    def measured(self, name: str) -> list[float]:
        """A number of every training line in the metrics that has it."""
        if not self.metrics.exists():
            return []
        lines = map(json.loads, self.metrics.read_text(encoding="utf-8").splitlines())
        return [line[name] for line in lines if name in line]

    def _check_same(self, experiment: Experiment) -> None:
        changed = experiments.differences(experiments.load(self.experiment), experiment)
        if changed:
            raise UserError(
                f"The run in {self.path} is another experiment and cannot be resumed as this one: "
                f"{'; '.join(changed)}. Resume it as it was, or choose another folder."
            )

    def _clear(self) -> None:
        for name in reversed(CONTENT):
            path = self.path / name
            remove: Callable[[Path], object] = shutil.rmtree if path.is_dir() else Path.unlink
            if path.exists():
                remove(path)

    def _note_resumed(self) -> None:
        path = self.path / run_files.ENVIRONMENT
        content: dict[str, Any] = read_json(path) if path.exists() else environment.describe()
        resumed = [*content.get("resumed", []), environment.now()]
        write_json(path, {**content, "resumed": resumed})


def _is_until(line: str, step: int) -> bool:
    try:
        return line.endswith("\n") and int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):
        return False
