"""Distances of class scores on the way of a training."""

import json
import shutil
from pathlib import Path

from tests.explain.conftest import Runs

from detdistill.data.scenes import CLASSES
from detdistill.explain.make import make
from detdistill.train.folder import RunFolder


def test_a_student_that_is_its_teacher_is_at_no_distance(runs: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(runs.distilled, tmp_path / "run")
    for ending in (".safetensors", ".json"):
        copy = RunFolder(run).snapshot(600).with_suffix(ending)
        shutil.copy(RunFolder(runs.teacher).student.with_suffix(ending), copy)
    made = make([run], only=["approach"])
    rows = json.loads((made.folder / "approach.json").read_text(encoding="utf-8"))
    start, end = rows
    assert [start["step"], end["step"]] == [0, 600]
    assert end["to_teacher"] < 1e-6 < start["to_teacher"]
    assert 0 < end["to_truth"] < len(CLASSES)


def test_without_kept_students_the_way_to_keep_some_is_named(runs: Runs, tmp_path: Path) -> None:
    made = make([runs.alone], only=["approach"], out=tmp_path)
    assert "--keep_every" in made.missing["approach"]
