"""From a teacher to a report, through the command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from tests.cli.terminal import MICRO, SOURCE, detdistill

from detdistill import detectors
from detdistill.data.scenes import CLASSES
from detdistill.interop import checkpoint


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "student"
    done = detdistill(
        *("distill", *MICRO, "--teacher", teacher, "--out", folder),
        *("--method", "crosskd+pkd", "--crosskd.cut", "1", "--pkd.weight", "2.5"),
    )
    assert done.code == 0, done.err
    return folder


def test_the_run_folder_holds_the_experiment_with_the_methods_settings(student: Path) -> None:
    experiment = yaml.safe_load((student / "experiment.yaml").read_text())
    assert experiment["methods"]["crosskd"]["cut"] == 1
    assert experiment["methods"]["pkd"]["weight"] == 2.5
    assert experiment["images"] == 32


def test_a_run_is_repeated_by_the_experiment_in_its_folder(student: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    done = detdistill("distill", "--config", student / "experiment.yaml", "--out", again)
    assert done.code == 0, done.err
    first, second = checkpoint.load(student), checkpoint.load(again)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name


def test_distill_without_a_method_is_train(teacher: Path, tmp_path: Path) -> None:
    done = detdistill("distill", *MICRO, "--out", tmp_path / "plain")
    assert done.code == 0, done.err
    first, second = checkpoint.load(teacher), checkpoint.load(tmp_path / "plain")
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name


def test_evaluate_finds_the_numbers_of_the_training(student: Path, tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    done = detdistill("evaluate", student, "--data", "shapes:tiny", "--out", out)
    assert done.code == 0, done.err
    trained = json.loads((student / "evaluation.json").read_text())
    assert _numbers(json.loads(out.read_text())) == pytest.approx(_numbers(trained), abs=1e-6)


def _numbers(evaluation: dict[str, Any]) -> dict[str, float]:
    """The metrics, which another memory layout rounds otherwise."""
    metrics = dict(evaluation["metrics"])
    return {**metrics.pop("per_class"), **metrics}


def test_predict_draws_what_it_can_read_and_names_the_rest(student: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (90, 60), "teal").save(photos / "good.jpg")
    (photos / "bad.png").write_text("not a picture")
    done = detdistill("predict", student, photos, "--out", tmp_path / "drawn")
    assert done.code == 0, done.err
    assert "bad.png" in done.err
    found = json.loads((tmp_path / "drawn" / "images.json").read_text())
    assert [entry["file_name"] for entry in found["images"]] == [str(photos / "good.jpg")]
    assert Image.open(tmp_path / "drawn" / "pictures" / "good.png").size == (90, 60)


def test_report_is_one_page(student: Path, teacher: Path, tmp_path: Path) -> None:
    done = detdistill("report", teacher, student, "--out", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert "crosskd" in (tmp_path / "page.html").read_text()


def test_doctor_shows_pairs_and_shares_and_writes_nothing(teacher: Path, tmp_path: Path) -> None:
    words = [*MICRO, "--teacher", teacher, "--method", "crosskd", "--crosskd.cut", "1"]
    done = detdistill("doctor", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "box tower after block 1, level 2" in done.out
    necks = [line for line in done.out.splitlines() if "neck, level" in line]
    assert len(necks) == 3
    assert all(line.count(" channels, ") == 2 for line in necks)
    assert "crosskd/cls" in done.out
    assert "share of gradient" in done.out
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def of_eighty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained teacher of eighty classes, those of `shapes` among them but one."""
    names = [*(f"other {number}" for number in range(69)), "Solid_Circle", *reversed(CLASSES[2:])]
    file = tmp_path_factory.mktemp("teachers") / "eighty.safetensors"
    checkpoint.save(detectors.build("gfl-mini-w16", names), file)
    return file


def test_a_teacher_of_eighty_classes_teaches_the_classes_in_common(
    of_eighty: Path, tmp_path: Path
) -> None:
    words = ["--teacher", of_eighty, "--method", "kd", "--out", tmp_path / "run"]
    done = detdistill("distill", *MICRO, *words, "--class_map", "{hollow star: null}")
    assert done.code == 0, done.err
    assert "10 of the student's 12 classes are among the teacher's 80: Solid_Circle is" in done.err
    assert "does not know striped circle, hollow star" in done.err
    card = json.loads((tmp_path / "run" / "student.json").read_text())
    assert len(card["teacher_classes"]) == 10
    assert card["teacher_classes"]["Solid_Circle"] == "solid circle"


def test_a_detector_is_not_evaluated_on_classes_that_it_does_not_know(of_eighty: Path) -> None:
    done = detdistill("evaluate", of_eighty, "--data", "shapes:tiny")
    assert done.code == 2
    assert "it does not know striped circle" in done.err


def test_ctrl_c_leaves_a_run_and_says_how_to_go_on(tmp_path: Path) -> None:
    words = ["train", *MICRO, "--steps", "100000", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "detdistill", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)},
    )
    assert process.stderr
    for line in process.stderr:
        if line.startswith("step "):
            break
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "--resume" in said.splitlines()[-1]
    assert "Traceback" not in said
