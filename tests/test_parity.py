from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests import parity

FOLDER = Path(__file__).parent / "fixtures" / "parity"
CASES = list(parity.cases(FOLDER))


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_library_computes_what_mmdetection_computed(case: parity.Case) -> None:
    assert parity.failure(case) is None


def test_every_kind_of_folder_is_among_them() -> None:
    assert {case.run.func.__module__.rpartition(".")[2] for case in CASES} == {
        "assignment",
        "dense",
        "distillation",
        "faster_rcnn",
        "operations",
    }


def tampered(folder: Path, name: str, **changes: float) -> Path:
    """A copy of a folder in which something was added to the first number of some arrays."""
    shutil.copytree(FOLDER / name, folder / name)
    with np.load(FOLDER / name / "io.npz") as file:
        arrays = {key: file[key] for key in file.files}
    for key, more in changes.items():
        arrays[key] = np.array(arrays[key]) if key in arrays else np.zeros(1)
        arrays[key].flat[0] += more
    np.savez(folder / name / "io.npz", **arrays)
    return folder


def failures(folder: Path, letter: str) -> str | None:
    """Why a case of the folder's only detector fails."""
    [case] = [case for case in parity.cases(folder) if case.name.endswith(f" {letter}")]
    return parity.failure(case)


@pytest.mark.parametrize(
    ("key", "more", "message"),
    [
        ("A.inputs", 0.1, "inputs differs by 0.1"),
        ("A.backbone.2", 0.1, "backbone.2 differs by 0.1"),
        ("A.fpn.1", 0.1, "fpn.1 differs by 0.1"),
        ("A.eval.cls.4", 0.1, "eval.cls.4 differs by 0.1"),
        ("A.eval.reg.0", 0.1, "eval.reg.0 differs by 0.1"),
        ("A.det.1.boxes", 0.02, "1 of det.1 have no counterpart"),
        ("A.det_strict.0.scores", 0.001, "1 of det_strict.0 have no counterpart"),
        ("A.targets.labels.3", 1, "labels differs by 1"),
        ("A.targets.pos_bbox_targets.0", 0.1, "boxes of positives differs by 0.1"),
        ("A.targets.avg_factor", 1, "targets.avg_factor differs by 1"),
        ("A.loss.loss_centerness", 0.1, "loss_centerness differs by 0.1"),
        ("A.loss.total", 0.1, "total loss differs by 0.1"),
        ("A.loss.loss_new", 0.1, "nothing computes loss_new"),
        ("A.grad.fpn_lateral0", 0.1, "grad.fpn_lateral0 differs by 0.1"),
        ("A.surprise", 0.1, "nothing compares surprise"),
    ],
)
def test_a_different_number_is_noticed(tmp_path: Path, key: str, more: float, message: str) -> None:
    assert failures(tampered(tmp_path, "atss/r18", **{key: more}), "A") == message


def test_a_different_gradient_norm_is_noticed(tmp_path: Path) -> None:
    folder = tampered(tmp_path, "atss/r18")
    file = folder / "atss/r18/config.json"
    text = file.read_text()
    file.write_text(
        text.replace('"bbox_head.atss_cls.weight": 5.76', '"bbox_head.atss_cls.weight": 5.86')
    )
    assert failures(folder, "A") == "gradient norm of bbox_head.atss_cls.weight differs by 0.1"


def test_inputs_and_weights_may_lie_beside_a_folder(tmp_path: Path) -> None:
    tampered(tmp_path, "atss/r18")
    with np.load(FOLDER / "atss/r18/io.npz") as file:
        arrays = {key: file[key] for key in file.files if not key.startswith(("A.inputs", "A.raw"))}
    shutil.copytree(FOLDER / "atss/r18", tmp_path / "atss/another")
    (tmp_path / "atss/another/checkpoint.pth").unlink()
    np.savez(tmp_path / "atss/another/io.npz", **arrays)
    cases = {case.name: case for case in parity.cases(tmp_path)}
    assert parity.failure(cases["atss/another A"]) is None


def test_another_copy_of_a_checkpoint_must_hold_the_same_weights(tmp_path: Path) -> None:
    tampered(tmp_path, "atss/r18")
    shutil.copytree(
        FOLDER / "atss/r18", tmp_path / "atss/published", ignore=shutil.ignore_patterns("*n*")
    )
    shutil.copy(FOLDER / "atss/r18/checkpoint.pth", tmp_path / "atss/published/atss-0123.pth")
    (tmp_path / "atss/published/broken.pth").write_bytes(b"PK")
    cases = {case.name: case for case in parity.cases(tmp_path)}
    assert parity.failure(cases["atss/published/atss-0123.pth"]) is None
    assert "cut short" in str(parity.failure(cases["atss/published/broken.pth"]))


def test_what_is_not_known_fails_and_the_last_line_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(FOLDER / "ops", tmp_path / "ops")
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo/config.json").write_text('{"model": {"type": "YOLO"}, "cases": {}}')
    np.savez(tmp_path / "yolo/io.npz", nothing=np.zeros(1))
    assert parity.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "FAILED yolo: there is nothing here to compare a YOLO with"
    assert lines[-1] == f"{len(lines) - 2} passed, 1 failed"
    shutil.rmtree(tmp_path / "yolo")
    assert parity.main([str(tmp_path)]) == 0


def test_a_folder_without_numbers_is_a_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity.main([str(tmp_path)]) == 2
    assert "no recorded numbers" in capsys.readouterr().err
    assert parity.main([]) == 2
