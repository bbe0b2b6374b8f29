"""Run folders as the report sees them: files that are read, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detdistill import run_files
from detdistill.errors import UserError
from detdistill.files import read_json, read_yaml

Json = dict[str, Any]

CONTROL = "equal-compute"
"""What the folder's name of a run says that was given another one's computing time."""
_DEPTH = 3
_FRESH: Mapping[str, Any] = {"state": "unknown", "step": 0, "steps": 0}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training, as its folder tells it; numbers are as written there (AP as a fraction)."""

    folder: Path
    experiment: Json
    environment: Json
    status: Json
    log: list[Json]
    """The lines of `metrics.jsonl`."""
    evaluation: Json
    """`evaluation.json`; empty while the run is not finished."""
    card: Json = field(default_factory=dict)
    """What stands beside the weights of the trained detector; empty if nothing does."""
    is_checkpoint: bool = False
    """Whether it is a detector of whose training nothing is known."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def finished(self) -> bool:
        """Whether there are final numbers to report."""
        is_known = bool(self.evaluation) or self.is_checkpoint
        return is_known and self.status["state"] == "finished"

    @property
    def methods(self) -> dict[str, Json]:
        """Method names and their hyper-parameters; empty for training without a teacher."""
        methods = self.experiment.get("methods") or {}
        return {name: settings or {} for name, settings in methods.items()}

    @property
    def fingerprint(self) -> str | None:
        """Of the trained weights, if it was written down."""
        return self.card.get("fingerprint")

    @property
    def taught_by(self) -> str | None:
        """The fingerprint of the teacher's weights, if there was one and it was written down."""
        return self.card.get("teacher")

    @property
    def student(self) -> str:
        """The detector that was trained."""
        return str(self.experiment.get("student", "a detector"))

    @property
    def seed(self) -> int:
        """What the run's randomness starts from."""
        return int(self.experiment.get("seed", 0))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return int(self.experiment.get("steps", 0))

    @property
    def setting(self) -> tuple[str, int | None, str]:
        """Data, number of labelled images (None for all), detector: what makes runs comparable."""
        return self.data, self.experiment.get("images"), self.student

    @property
    def data(self) -> str:
        """The name of the data that the run learned from."""
        return str(self.experiment.get("data", "unknown data"))

    @property
    def test(self) -> tuple[str, str, int]:
        """Data, split and number of images that the final numbers stand on."""
        found = self.evaluation
        data = str(found.get("data", self.data))
        return data, str(found.get("split", "test")), int(found.get("images", 0))

    def metric(self, name: str) -> float | None:
        """A COCO number as a fraction; None where it is undefined."""
        value = self.evaluation.get("metrics", {}).get(name)
        return None if value is None or value < 0 else float(value)

    def cost(self, name: str) -> float | None:
        """A number of what the training took."""
        return _number(self.evaluation.get("cost", {}), name)

    @property
    def step_cost(self) -> float | None:
        """Milliseconds of a step: of processor time, or on a GPU by the clock.

        Busy neighbours stretch the clock's time, not the processor's.
        """
        if self.environment.get("gpu"):
            return self.cost("step_ms")
        seconds, steps = self.cost("cpu_seconds"), _number(self.evaluation, "step")
        return 1e3 * seconds / steps if seconds is not None and steps else None

    def fact(self, name: str) -> float | None:
        """A number of the detector's size and speed."""
        return _number(self.evaluation.get("facts", {}), name)

    @property
    def latency(self) -> tuple[float, float, float] | None:
        """Median, low and high milliseconds per image."""
        found = self.evaluation.get("facts", {}).get("latency_ms")
        if not isinstance(found, dict):
            return None
        median = float(found["median"])
        return median, float(found.get("low", median)), float(found.get("high", median))

    def detections(self) -> list[Json]:
        """COCO results on the test split; none where the file is missing."""
        path = self.folder / run_files.DETECTIONS
        return list(read_json(path)) if path.exists() else []


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads every run in `folders`; each is a run folder or holds some.

    Raises:
        UserError: a folder is missing or holds no run, or a file of a run cannot be read.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        for run in _run_folders(folder):
            found.setdefault(run.resolve(), run)
    if not found:
        raise UserError("There is nothing to report on: name at least one run folder.")
    return [read_run(folder) for folder in found.values()]


def family_of(detector: str) -> str:
    """`faster_rcnn-r50` is of the family `faster_rcnn`."""
    return detector.partition("-")[0]


def is_run(folder: Path) -> bool:
    """Whether a training has written its experiment here."""
    return (folder / run_files.EXPERIMENT).is_file()


def read_run(folder: Path) -> Run:
    """Reads one run folder; files that a run writes last may be missing.

    Raises:
        UserError: the experiment is missing, or a file cannot be read.
    """
    return Run(
        folder=folder,
        experiment=_read_experiment(folder / run_files.EXPERIMENT),
        environment=read_object(folder / run_files.ENVIRONMENT),
        status={**_FRESH, **read_object(folder / run_files.STATUS)},
        log=list(_read_lines(folder / run_files.METRICS)),
        evaluation=read_object(folder / run_files.EVALUATION),
        card=read_object(folder / run_files.CARD),
    )


def teacher_places(run: Run) -> list[Path]:
    """Where the teacher of `run` may lie, as files or folders.

    First come the path as it was named and its folder, then what is near the run, then the path as
    seen from folders above the run, for it may have been typed in one of them.
    """
    named = run.experiment.get("teacher")
    if not named:
        return []
    path = Path(str(named))
    folder = path.parent if path.suffix == ".safetensors" else path
    here = run.folder.resolve()
    above = [parent / place for parent in here.parents for place in (path, folder)]
    near = [here.parent / folder.name, here.parent.parent / folder.parent.name / folder.name]
    places = dict.fromkeys([path, folder, *near, *above])
    return [place for place in places if place.resolve() != here]


def _run_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Name a run folder, or one that holds runs.")
    if is_run(folder):
        return [folder]
    marks = [
        mark
        for depth in range(1, _DEPTH + 1)
        for mark in sorted(folder.glob("/".join(["*"] * depth + [run_files.EXPERIMENT])))
    ]
    if not marks:
        raise UserError(
            f"{folder} is not a run folder and holds none: no {run_files.EXPERIMENT} in it. "
            "Name a folder that `train`, `distill` or `demo` wrote."
        )
    return [mark.parent for mark in marks]


def _read_experiment(path: Path) -> Json:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold an experiment: expected names with values.")
    return content


def read_object(path: Path) -> Json:
    """A JSON object; empty if the file is not there.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    if not path.exists():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object.")
    return content


def _read_lines(path: Path) -> Iterator[Json]:
    """The lines that are whole; a killed run may leave half of one at the end."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def _number(values: Json, name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, (int, float)) else None
