"""Which pictures are looked at, how, and what is written about them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from detdistill import data, detectors
from detdistill.cli import main, pictures, predicting, predictions, verbs
from detdistill.data import shapes
from detdistill.errors import UserError
from detdistill.interop import checkpoint
from detdistill.structures import Detections

SIZES = [(90, 60), (90, 62), (60, 90), (128, 128), (33, 40), (128, 120)]


def picture(path: Path, size: tuple[int, int] = (90, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)
    return path


def save(file: Path, classes: Sequence[str], card: dict[str, Any]) -> str:
    """A detector without training that finds many objects."""
    torch.manual_seed(0)
    built: Any = detectors.build("gfl-mini-w8", classes)
    with torch.no_grad():
        built.head.cls.weight.mul_(20)
        built.head.cls.bias.fill_(-2)
    checkpoint.save(built, file, card)
    return str(file)


@pytest.fixture(scope="module")
def trained_at_32(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("models") / "a.safetensors"
    return save(file, ["thing", "other"], {"resize": (32, 64)})


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("models") / "b.safetensors"
    return save(file, ["thing", "other"], {})


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes."""
    folder = tmp_path_factory.mktemp("noise")
    torch.manual_seed(1)
    for number, (width, height) in enumerate(SIZES):
        pixels = torch.randint(256, (height, width, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"frame{number}.png")
    return folder


def test_frames_are_looked_at_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    for name in ("frame10.png", "frame2.png", "b10/x1.png", "b9/x1.png", "frame1.png"):
        picture(tmp_path / name)
    names = [str(file.relative_to(tmp_path)) for file in pictures.find([str(tmp_path)])]
    assert names == ["b9/x1.png", "b10/x1.png", "frame1.png", "frame2.png", "frame10.png"]
    matched = pictures.find([str(tmp_path / "frame1*.png"), str(tmp_path / "frame1.png")])
    assert [file.name for file in matched] == ["frame1.png", "frame10.png"]


def test_a_pattern_that_only_matches_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    with pytest.raises(UserError, match="no file or folder"):
        pictures.find([str(tmp_path / "fr*")])


def test_names_of_what_is_written_are_all_different() -> None:
    files = [Path(name) for name in ("a/x.png", "b/x.png", "a/x.jpg", "a-x-2.png", "y.png")]
    assert list(pictures.stems(files).values()) == ["a-x", "b-x", "a-x-2", "a-x-2-2", "y"]


def test_a_picture_is_seen_as_in_the_training_and_boxes_are_those_of_the_picture(
    trained_at_32: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole_picture(_: object, images: list[torch.Tensor], **__: object) -> Detections:
        height, width = images[0].shape[-2:]
        assert (height, width) == (32, 48)
        return Detections(
            boxes=torch.tensor([[[0.0, 0.0, width, height]]]),
            scores=torch.ones(1, 1),
            labels=torch.zeros(1, 1, dtype=torch.int64),
            counts=torch.ones(1, dtype=torch.int64),
        )

    monkeypatch.setattr(predicting, "detect", whole_picture)
    photo = picture(tmp_path / "photo.jpg")
    found = verbs.predict(trained_at_32, [str(photo)], out=str(tmp_path / "found"))
    assert [entry["bbox"] for entry in found["detections"]] == [[0, 0, 90, 60]]
    assert Image.open(tmp_path / "found" / "pictures" / "photo.png").size == (90, 60)


def test_the_batch_changes_nothing_but_rounding(
    talkative: str, noise: Path, tmp_path: Path
) -> None:
    alone, together = (
        verbs.predict(
            talkative, [str(noise)], out=str(tmp_path / str(size)), formats=[], batch_size=size
        )["detections"]
        for size in (1, 4)
    )
    assert len(alone) == len(together) > 50
    for one, other in zip(alone, together, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


def test_results_stand_in_the_order_of_the_pictures(
    talkative: str, noise: Path, tmp_path: Path
) -> None:
    found = verbs.predict(talkative, [str(noise)], out=str(tmp_path / "out"), formats=[])
    for entries, key in ((found["images"], "id"), (found["detections"], "image_id")):
        numbers = [entry[key] for entry in entries]
        assert numbers == sorted(numbers)


def test_all_formats_say_the_same(talkative: str, noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    found = verbs.predict(
        talkative, [str(noise)], out=str(out), formats=["coco", "yolo", "pictures"]
    )
    assert json.loads((out / "detections.json").read_text()) == found["detections"]
    assert json.loads((out / "images.json").read_text())["images"] == found["images"]
    assert (out / "classes.txt").read_text().split() == ["thing", "other"]
    assert [entry["id"] for entry in found["categories"]] == [1, 2]
    lines = 0
    for number, (width, height) in enumerate(SIZES):
        assert Image.open(out / "pictures" / f"frame{number}.png").size == (width, height)
        rows = (out / "labels" / f"frame{number}.txt").read_text().splitlines()
        mine = [entry for entry in found["detections"] if entry["image_id"] == number + 1]
        for row, entry in zip(rows, mine, strict=True):
            label, *numbers = row.split()
            across, down, wide, high, score = map(float, numbers)
            box = [(across - wide / 2) * width, (down - high / 2) * height]
            assert [*box, wide * width, high * height] == pytest.approx(entry["bbox"], abs=1e-3)
            assert int(label) + 1 == entry["category_id"]
            assert score == pytest.approx(entry["score"], abs=1e-6)
        lines += len(rows)
    assert lines == len(found["detections"]) > 50


def test_ids_are_those_of_the_data(tmp_path: Path) -> None:
    shapes.write(tmp_path / "made", "tiny", layout="coco", train=1, tune=1, test=3)
    name = f"coco:{tmp_path / 'made'}"
    truth: Any = data.open(name, "test")
    file = save(tmp_path / "model.safetensors", list(reversed(truth.classes)), {})
    stranger = picture(tmp_path / "stranger.png")
    copied = tmp_path / "elsewhere" / truth.file(1).name
    copied.parent.mkdir()
    copied.write_bytes(truth.file(1).read_bytes())
    found = verbs.predict(
        *(file, [str(truth.file(2)), str(copied), str(stranger)]),
        out=str(tmp_path / "found"),
        data=name,
    )
    images = truth.ground_truth()["images"]
    assert [entry["id"] for entry in found["images"]] == [images[2]["id"], images[1]["id"]]
    names = dict(zip(truth.category_ids, truth.classes, strict=True))
    assert {entry["id"]: entry["name"] for entry in found["categories"]} == names
    assert list(found["skipped"]) == [str(stranger)]


def test_no_two_pictures_get_the_same_id(tmp_path: Path) -> None:
    shapes.write(tmp_path / "made", "tiny", layout="coco", train=1, tune=1, test=2)
    name = f"coco:{tmp_path / 'made'}"
    truth: Any = data.open(name, "test")
    own, other = truth.file(0), truth.file(1)
    namesake = picture(tmp_path / "a" / own.name)
    copies = [picture(tmp_path / place / other.name) for place in "ab"]
    files = [namesake, own, *copies]
    assert predictions.ids_of(name, "test", files, []).pictures == {
        own: truth.ground_truth()["images"][0]["id"]
    }
    alone = predictions.ids_of(name, "test", [namesake], []).pictures
    assert alone == {namesake: truth.ground_truth()["images"][0]["id"]}


def test_a_class_that_is_written_in_another_way_has_its_id(tmp_path: Path) -> None:
    shapes.write(tmp_path / "made", "tiny", layout="coco", train=1, tune=1, test=1)
    name = f"coco:{tmp_path / 'made'}"
    truth: Any = data.open(name, "test")
    last, first = truth.classes[-1].upper(), truth.classes[0]
    ids = predictions.ids_of(name, "test", [], [last, first]).classes
    assert ids == [truth.category_ids[-1], truth.category_ids[0]]


def test_data_without_the_detectors_classes_is_refused(talkative: str, tmp_path: Path) -> None:
    shapes.write(tmp_path / "made", "tiny", layout="coco", train=1, tune=1, test=1)
    photo = str(picture(tmp_path / "photo.png"))
    for name, complaint in (
        (f"coco:{tmp_path / 'made'}", "no ids for these classes"),
        ("shapes:tiny", "no picture files"),
    ):
        with pytest.raises(UserError, match=complaint):
            verbs.predict(talkative, [photo], out=str(tmp_path / "found"), data=name)


def test_a_broken_file_is_reported_and_counted_and_does_not_shift_ids(
    talkative: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 3):
        picture(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "2.png").write_text("not a picture")
    words = [talkative, str(tmp_path / "in"), "--out", str(tmp_path / "found"), "--formats", "coco"]
    assert main(["predict", *words]) == 0
    said = capsys.readouterr()
    assert "2.png is not a picture" in said.err
    assert "2 picture(s), 1 skipped" in said.out
    story = json.loads((tmp_path / "found" / "images.json").read_text())
    assert [entry["id"] for entry in story["images"]] == [1, 3]
    assert list(story["skipped"]) == [str(tmp_path / "in" / "2.png")]


def test_nothing_is_left_when_there_is_nothing_to_tell(talkative: str, tmp_path: Path) -> None:
    broken = tmp_path / "2.png"
    broken.write_text("not a picture")
    with pytest.raises(UserError, match=r"No picture can be used.*2\.png is not a picture"):
        verbs.predict(talkative, [str(broken)], out=str(tmp_path / "found"))
    assert list(tmp_path.iterdir()) == [broken]


@pytest.mark.parametrize("occupied", ["photo.png", "."])
def test_an_occupied_place_is_refused_before_any_work(occupied: str, tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.png")
    with pytest.raises(UserError, match="already exists and is not empty"):
        verbs.predict("no/such/model", [str(photo)], out=str(tmp_path / occupied))


def test_a_batch_of_none_is_refused(talkative: str, tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.png")
    with pytest.raises(UserError, match="--batch_size 1 or more"):
        verbs.predict(talkative, [str(photo)], out=str(tmp_path / "found"), batch_size=0)


def test_a_long_folder_is_counted(
    talkative: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("detdistill.cli.waiting.LONG", 2)
    for number in range(4):
        picture(tmp_path / "in" / f"{number}.png", (32, 32))
    verbs.predict(
        talkative, [str(tmp_path / "in")], out=str(tmp_path / "out"), formats=[], batch_size=2
    )
    assert capsys.readouterr().err.split("\n")[:2] == ["2 of 4 pictures", "4 of 4 pictures"]
