from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from detdistill import detectors
from detdistill.detectors import Detector
from detdistill.errors import UserError
from detdistill.interop import checkpoint


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    return detectors.build("gfl-mini-w8", ["circle", "square"]).eval()


def test_a_saved_detector_comes_back_with_the_same_outputs(
    detector: Detector, tmp_path: Path
) -> None:
    checkpoint.save(detector, tmp_path / "student.safetensors", {"note": "hello"})
    loaded = checkpoint.load(tmp_path).eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(loaded(images).dense.decoded(), detector(images).dense.decoded())
    assert loaded.spec == detector.spec
    assert checkpoint.fingerprint(loaded) == checkpoint.fingerprint(detector)
    card = json.loads((tmp_path / "student.json").read_text())
    assert card["classes"] == ["circle", "square"]
    assert card["note"] == "hello"


def test_a_full_disk_is_told_without_a_traceback(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(UserError, match=r"Cannot write .*safetensors: .*No space left"):
        checkpoint.save(detector, tmp_path / "student.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_sees_one_changed_weight(detector: Detector) -> None:
    before = checkpoint.fingerprint(detector)
    with torch.no_grad():
        detector.head.cls.bias[0] += 1
    assert checkpoint.fingerprint(detector) != before


@pytest.mark.parametrize("resize", [None, (800, 1333)])
def test_the_size_of_the_pictures_is_in_the_card(
    detector: Detector, tmp_path: Path, resize: tuple[int, int] | None
) -> None:
    checkpoint.save(detector, tmp_path / "student.safetensors", {"resize": resize})
    assert checkpoint.resize_of(tmp_path) == resize


def test_a_card_that_knows_no_size_means_any(detector: Detector, tmp_path: Path) -> None:
    checkpoint.save(detector, tmp_path / "a.safetensors")
    assert checkpoint.resize_of(tmp_path / "a.safetensors") is None


@pytest.mark.parametrize("resize", [800, [800], [800, 0], ["a", "b"]])
def test_a_card_with_a_wrong_size_is_named(
    detector: Detector, tmp_path: Path, resize: object
) -> None:
    checkpoint.save(detector, tmp_path / "a.safetensors", {"resize": resize})
    with pytest.raises(UserError, match=r"a\.json: 'resize'"):
        checkpoint.resize_of(tmp_path / "a.safetensors")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "nothing")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    torch.save({"weights": 1}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"not a \.safetensors file"):
        checkpoint.load(tmp_path / "model.pth")


def test_a_checkpoint_that_was_cut_short_is_named(detector: Detector, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    checkpoint.save(detector, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut short"):
        checkpoint.load(file)


def test_a_checkpoint_without_its_card_is_named(detector: Detector, tmp_path: Path) -> None:
    checkpoint.save(detector, tmp_path / "a.safetensors")
    (tmp_path / "a.json").unlink()
    with pytest.raises(UserError, match="has no card"):
        checkpoint.load(tmp_path / "a.safetensors")


def test_weights_of_another_architecture_are_refused(detector: Detector, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    checkpoint.save(detector, file)
    safetensors.torch.save_file({"stranger": torch.zeros(3)}, file)
    with pytest.raises(UserError, match="does not fit its card"):
        checkpoint.load(file)


def test_weights_that_were_replaced_without_their_card_are_refused(
    detector: Detector, tmp_path: Path
) -> None:
    checkpoint.save(detector, tmp_path / "student.safetensors")
    other = detectors.build("gfl-mini-w8", ["circle", "square"])
    checkpoint.save_tensors(tmp_path / "student.safetensors", other.state_dict())
    with pytest.raises(UserError, match=r"holds other weights than its card student\.json"):
        checkpoint.load(tmp_path)
