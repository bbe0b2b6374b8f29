"""Run folders as trainings leave them, made up: detections of some skill, weights of none."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.report import made_up

from detdistill import detectors
from detdistill.data.scenes import CLASSES
from detdistill.explain.subject import Subject
from detdistill.interop import checkpoint
from detdistill.train import checkpoint as checkpoints
from detdistill.train.folder import RunFolder

METHODS = {"crosskd": {}, "pkd": {}}


@dataclass(frozen=True)
class Runs:
    """Folders of a teacher, a student alone and a distilled one."""

    teacher: Path
    alone: Path
    distilled: Path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("explained")
    teacher = made_up.run(root / "teacher", ap=0.7, student="gfl-quick-w16", skill=0.95)
    fingerprint = save_detector(teacher, "gfl-quick-w16")
    alone = made_up.run(root / "alone", ap=0.3, student="gfl-quick-w8", skill=0.4)
    save_detector(alone, "gfl-quick-w8")
    distilled = made_up.run(
        root / "distilled",
        ap=0.5,
        student="gfl-quick-w8",
        skill=0.7,
        methods=METHODS,
        teacher=teacher,
    )
    save_detector(distilled, "gfl-quick-w8", teacher=fingerprint)
    for step in (0, 600):
        save_detector(distilled, "gfl-quick-w8", step=step)
    return Runs(teacher, alone, distilled)


def save_detector(folder: Path, name: str, *, step: int | None = None, **card: str) -> str:
    """Untrained weights, as a run's last ones or as a snapshot, and their fingerprint."""
    torch.manual_seed(step or 0)
    detector = detectors.build(name, CLASSES)
    run = RunFolder(folder)
    checkpoint.save(detector, run.student if step is None else run.snapshot(step), card)
    return checkpoint.fingerprint(detector)


def save_training(subject: Subject) -> None:
    """What a training leaves of the methods of distilled students: here, what they began with."""
    for label in subject.distilled:
        folder = RunFolder(subject.parts[label].checkpoint).last
        folder.mkdir(parents=True)
        state = {"trainer": {"step": subject.train_step(label).state_dict()}}
        torch.save(state, folder / checkpoints.STATE)
