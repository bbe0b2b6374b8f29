"""What a user gets wrong ends in one clear message, exit code 2, and soon."""

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from tests.cli.terminal import MICRO, detdistill, python

from detdistill import cli, detectors
from detdistill.interop import checkpoint

IMPORTS = 2
"""Times as long as imports take: whatever takes longer has begun to work."""

Fails = Callable[..., None]


@pytest.fixture(scope="session")
def cpu_seconds() -> float:
    """How soon a mistake has to be found, on whatever machine this is."""
    return IMPORTS * python("-c", "import detdistill.train.loop").cpu_seconds


@pytest.fixture
def fails(cpu_seconds: float) -> Fails:
    def check(*words: object, saying: str) -> None:
        done = detdistill(*words)
        assert done.code == 2, done.out + done.err
        assert done.err.count("\n") == 1, done.err
        assert done.err.startswith("detdistill: error: ")
        assert saying in done.err
        assert done.cpu_seconds < cpu_seconds

    return check


def test_a_wrong_detector_name(fails: Fails, tmp_path: Path) -> None:
    fails("train", "--student", "gfl-r19", "--out", tmp_path / "r", saying="Did you mean 'gfl-r1")


def test_pretrained_weights_without_a_network(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fails(
        *("train", "--student", "gfl-r18", "--pretrained", "imagenet", "--out", tmp_path / "r"),
        saying="resnet18-f37072fd.pth",
    )


def test_a_missing_file_of_pretrained_weights(fails: Fails, tmp_path: Path) -> None:
    fails("train", "--pretrained", "none.pth", "--out", tmp_path / "r", saying="no file none.pth")


def test_a_wrong_method_name(fails: Fails, teacher: Path, tmp_path: Path) -> None:
    fails(
        *("distill", "--teacher", teacher, "--method", "croskd", "--out", tmp_path / "r"),
        saying="Did you mean 'crosskd'?",
    )


def test_a_wrong_data_name(fails: Fails, tmp_path: Path) -> None:
    fails("train", "--data", "shape", "--out", tmp_path / "r", saying="Did you mean 'shapes'?")


def test_a_wrong_level_of_shapes(fails: Fails, tmp_path: Path) -> None:
    fails("train", "--data", "shapes:hrad", "--out", tmp_path / "r", saying="'hard'")


def test_a_missing_data_folder(fails: Fails, tmp_path: Path) -> None:
    fails("train", "--data", f"coco:{tmp_path}/none", "--out", tmp_path / "r", saying="none")


def test_a_missing_teacher(fails: Fails, tmp_path: Path) -> None:
    fails(
        *("distill", "--teacher", tmp_path / "no", "--method", "pkd", "--out", tmp_path / "r"),
        saying="There is no checkpoint",
    )


def test_a_missing_checkpoint_to_evaluate(fails: Fails, tmp_path: Path) -> None:
    fails("evaluate", tmp_path / "none.safetensors", saying="There is no checkpoint")


def test_a_method_without_a_teacher(fails: Fails, tmp_path: Path) -> None:
    fails("distill", "--method", "pkd", "--out", tmp_path / "r", saying="needs a teacher")


def test_a_teacher_with_other_classes(fails: Fails, tmp_path: Path) -> None:
    checkpoint.save(detectors.build("gfl-mini-w8", ["cat"]), tmp_path / "student.safetensors")
    fails(
        *("distill", "--teacher", tmp_path, "--method", "pkd", "--out", tmp_path / "r"),
        *("--data", "shapes:tiny"),
        saying="other classes",
    )


def test_an_output_folder_that_is_a_file(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fails("train", "--out", tmp_path / "file" / "run", saying="file")


def test_a_picture_that_is_not_a_picture(fails: Fails, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("not a picture")
    fails(
        *("predict", teacher, tmp_path / "broken.jpg", "--out", tmp_path / "drawn"),
        saying="broken.jpg is not a picture",
    )


def test_a_folder_without_pictures(fails: Fails, teacher: Path, tmp_path: Path) -> None:
    fails("predict", teacher, tmp_path, "--out", tmp_path / "drawn", saying="holds no pictures")


def test_a_report_on_nothing(fails: Fails, tmp_path: Path) -> None:
    fails("report", tmp_path, saying="not a run folder")


def test_a_run_that_is_there_already(fails: Fails, teacher: Path) -> None:
    fails("train", *MICRO, "--out", teacher, saying="holds a run already")


def test_a_cut_checkpoint(fails: Fails, teacher: Path, tmp_path: Path) -> None:
    broken = tmp_path / "student.safetensors"
    broken.write_bytes((teacher / "student.safetensors").read_bytes()[:1000])
    shutil.copy(teacher / "student.json", tmp_path)
    fails("evaluate", broken, saying="cannot be read")


def test_a_wrong_command(fails: Fails) -> None:
    fails("evalute", saying="Did you mean 'evaluate'?")


def test_an_unknown_option(fails: Fails) -> None:
    fails("train", "--stpes", "3", saying="Did you mean '--steps'?")
    fails("train", "--lr", "3", saying="Did you mean '--optimizer.lr'?")


def test_an_option_of_a_method_that_is_not_chosen(fails: Fails) -> None:
    fails("distill", "--crosskd.cut", "1", saying="add --method crosskd")


def test_a_value_of_the_wrong_type(fails: Fails) -> None:
    fails("train", "--steps", "many", saying="--steps takes int, not 'many'")


def test_a_file_with_an_unknown_setting(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("optimizer: {lrr: 1}\n")
    fails("train", "--config", tmp_path / "x.yaml", saying="'--optimizer.lr'")


@pytest.mark.parametrize("command", ["demo", "evaluate", "predict", "report"])
def test_a_place_that_cannot_be_written_to(
    fails: Fails, teacher: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "picture.jpg").write_text("never opened")
    words = {
        "demo": [],
        "evaluate": [teacher],
        "predict": [teacher, tmp_path / "picture.jpg"],
        "report": [teacher],
    }
    fails(command, *words[command], "--out", tmp_path / "file" / "x", saying="is a file")


def test_a_folder_in_place_of_a_file(fails: Fails, teacher: Path, tmp_path: Path) -> None:
    fails("evaluate", teacher, "--data", MICRO[1], "--out", tmp_path, saying="it is a folder")


def test_exporting_over_a_detector(fails: Fails, teacher: Path) -> None:
    weights = teacher / "student.safetensors"
    fails("export", teacher, "--out", weights, saying="--overwrite replaces it")


def test_precision_of_weights(fails: Fails, teacher: Path, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "m.safetensors", "--precision", "int8")
    fails("export", teacher, *words, saying="are for .onnx files")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "fewer pictures",
        ),
        (MemoryError(), "fewer pictures"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error."), "--shm-size"),
        (RuntimeError("DataLoader worker (pid(s) 3) exited unexpectedly"), "--shm-size"),
    ],
)
def test_a_lack_of_memory(
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "overview", Mock(side_effect=error))
    assert cli.main([]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "said", ["of ours", "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback"]
)
def test_other_errors_are_not_explained_away(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "overview", Mock(side_effect=RuntimeError(said)))
    with pytest.raises(RuntimeError, match=said):
        cli.main([])
