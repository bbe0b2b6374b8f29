"""Which pictures are looked at, in which size, and that none of them is lost."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from detdistill import detectors
from detdistill.cli import pictures
from detdistill.errors import UserError
from detdistill.interop import checkpoint
from detdistill.structures import Detections


def picture(path: Path, size: tuple[int, int] = (90, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)
    return path


@pytest.fixture(scope="module")
def trained_at_32(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("models") / "a.safetensors"
    checkpoint.save(detectors.build("gfl-mini-w8", ["thing"]), file, {"resize": (32, 64)})
    return str(file)


def test_what_was_drawn_before_is_not_looked_at_again(tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.jpg")
    picture(tmp_path / "drawn" / "photo.png")
    assert pictures.find([str(tmp_path)], without=tmp_path / "drawn") == [photo]


def test_a_drawn_picture_that_is_named_is_looked_at(tmp_path: Path) -> None:
    drawn = picture(tmp_path / "photo.png")
    assert pictures.find([str(tmp_path)], without=tmp_path) == [drawn]


def test_no_picture_is_replaced_by_its_drawn_copy(trained_at_32: str, tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.png")
    before = photo.read_bytes()
    with pytest.raises(UserError, match=r"would replace .*photo\.png"):
        pictures.predict(trained_at_32, [str(tmp_path)], tmp_path, score=0.3)
    assert photo.read_bytes() == before


def test_a_picture_is_seen_as_in_the_training_and_boxes_are_those_of_the_picture(
    trained_at_32: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole_picture(_: object, images: list[torch.Tensor]) -> Detections:
        height, width = images[0].shape[-2:]
        assert (height, width) == (32, 48)
        return Detections(
            boxes=torch.tensor([[[0.0, 0.0, width, height]]]),
            scores=torch.ones(1, 1),
            labels=torch.zeros(1, 1, dtype=torch.int64),
            counts=torch.ones(1, dtype=torch.int64),
        )

    monkeypatch.setattr(pictures, "detect", whole_picture)
    photo = picture(tmp_path / "photo.jpg")
    found = pictures.predict(trained_at_32, [str(photo)], tmp_path / "drawn", score=0.3)
    assert [entry["box"] for entry in found["images"][str(photo)]] == [[0, 0, 90, 60]]
    assert Image.open(tmp_path / "drawn" / "photo.png").size == (90, 60)
