import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detdistill import data
from detdistill.data import shapes
from detdistill.errors import UserError


def annotation(number: int | None, image: int, category: int, box: list[float], **more: Any) -> Any:
    named = {} if number is None else {"id": number}
    return {**named, "image_id": image, "category_id": category, "bbox": box, **more}


def messy() -> dict[str, Any]:
    """What is found in the wild: ids with gaps, crowds, empty pictures, impossible boxes."""
    return {
        "images": [
            {"id": 139, "file_name": "a.jpg", "width": 60, "height": 40},
            {"id": 7, "file_name": "empty.jpg", "width": 30, "height": 30},
            {"id": 90, "file_name": "sub/b.png", "width": 50, "height": 50},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            annotation(10, 90, 1, [5, 5, 20, 10], area=123.5, iscrowd=0, segmentation=[]),
            annotation(11, 139, 90, [-5, 30, 20, 20], area=80.0),
            annotation(12, 139, 1, [1, 2, 30, 30], area=500.0, iscrowd=1),
            annotation(12, 139, 1, [1, 2, 3, 4]),
            annotation(13, 139, 1, [5, 5, 0, 10]),
            annotation(14, 139, 1, [5, 5, -3, 10]),
            annotation(15, 139, 1, [5, math.nan, 3, 10]),
            annotation(16, 139, 1, [200, 5, 3, 10]),
            annotation(17, 4242, 1, [5, 5, 3, 10]),
            annotation(None, 90, 90, [1.5, 2.5, 4, 8]),
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, messy())


def write(folder: Path, content: Any, part: str = "train") -> Path:
    (folder / "annotations").mkdir(exist_ok=True)
    file = folder / "annotations" / f"instances_{part}2017.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    for name, size in (("a.jpg", (60, 40)), ("empty.jpg", (30, 30)), ("sub/b.png", (50, 50))):
        picture = folder / f"{part}2017" / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "teal").save(picture)
    return folder


def test_category_ids_with_gaps_become_labels_in_their_order(folder: Path) -> None:
    dataset = data.open(f"coco:{folder}", "train", skippable=1.0)
    assert dataset.classes == ("person", "toothbrush")
    assert dataset.category_ids == (1, 90)
    assert dataset[2].labels.tolist() == [0, 1]


def test_boxes_are_clipped_to_the_picture_and_crowds_are_marked(folder: Path) -> None:
    sample = data.open(f"coco:{folder}", "train", skippable=1.0)[0]
    assert sample.id == 139
    assert sample.image.shape == (3, 40, 60)
    assert sample.boxes.tolist() == [[0, 30, 15, 40], [1, 2, 31, 32]]
    assert sample.crowd.tolist() == [False, True]


def test_a_picture_without_annotations_stays(folder: Path) -> None:
    dataset = data.open(f"coco:{folder}", "train", skippable=1.0)
    assert len(dataset) == 3
    assert dataset[1].boxes.shape == (0, 4)
    assert data.collate([dataset[index] for index in range(3)]).truth.valid.sum() == 3


def test_what_cannot_be_true_is_left_out_and_counted(folder: Path) -> None:
    notes = data.open(f"coco:{folder}", "train", skippable=1.0).notes
    file = folder / "annotations" / "instances_train2017.json"
    assert notes == (
        f"1 annotation(s) left out: repeats an id ({file}, annotation 12)",
        f"1 annotation(s) left out: box is not finite ({file}, annotation 15)",
        f"2 annotation(s) left out: box has no area ({file}, annotation 13)",
        f"1 annotation(s) left out: box is outside the picture ({file}, annotation 16)",
        f"1 annotation(s) left out: belongs to no picture ({file}, annotation 17)",
    )


def test_more_than_may_be_skipped_is_refused_with_the_places(folder: Path) -> None:
    with pytest.raises(UserError, match=r"6 of 10 annotations .* annotation 12: .*; and 3 more"):
        data.open(f"coco:{folder}", "train")
    assert len(data.open(f"coco:{folder}", "train", skippable=0.6)) == 3


def test_the_ground_truth_is_the_files_own(folder: Path) -> None:
    truth = data.open(f"coco:{folder}", "train", skippable=1.0).ground_truth()
    assert [image["id"] for image in truth["images"]] == [139, 7, 90]
    assert [a["id"] for a in truth["annotations"]] == [1, 2, 3, 4]
    assert truth["annotations"][0]["bbox"] == [-5, 30, 20, 20]
    assert [a["area"] for a in truth["annotations"]] == [80.0, 500.0, 123.5, 32.0]
    assert [a["iscrowd"] for a in truth["annotations"]] == [0, 1, 0, 0]
    assert [a["category_id"] for a in truth["annotations"]] == [90, 1, 1, 90]


def test_a_limit_takes_the_first_pictures(folder: Path) -> None:
    dataset = data.open(f"coco:{folder}", "train", limit=2, skippable=1.0)
    assert len(dataset) == 2
    assert {a["image_id"] for a in dataset.ground_truth()["annotations"]} == {139}
    with pytest.raises(IndexError):
        dataset[2]


def test_a_split_without_a_file_falls_back_on_val(folder: Path) -> None:
    val = messy()
    val["images"] = val["images"][:1]
    write(folder, val, "val")
    sizes = {
        split: len(data.open(f"coco:{folder}", split, skippable=1.0))
        for split in ("train", "tune", "test")
    }
    assert sizes == {"train": 3, "tune": 1, "test": 1}
    assert "val stands in" in data.open(f"coco:{folder}", "test", skippable=1.0).notes[0]
    assert "stands in" not in str(data.open(f"coco:{folder}", "tune", skippable=1.0).notes)


def without(key: str, entry: str) -> dict[str, Any]:
    content = messy()
    del content[entry][0][key]
    return content


def changed(entry: str, **values: Any) -> dict[str, Any]:
    content = messy()
    content[entry][0].update(values)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "cannot be read as JSON"),
        ([], "COCO's format"),
        ({"images": [], "annotations": []}, "'categories'"),
        (without("file_name", "images"), "'file_name'"),
        (without("bbox", "annotations"), "annotation 10: box is not four numbers"),
        (changed("images", width=0), "'width' must be a positive whole number"),
        (changed("images", id="7"), "'id' must be a whole number"),
        (changed("images", id=7), "two images have the id 7"),
        (changed("categories", id=1), "two categories have the id 1"),
        (changed("categories", name="person"), r"categories \[90, 1\] are all called 'person'"),
        (changed("annotations", bbox=[1, 2, 3]), "annotation 10: box is not four numbers"),
        (changed("annotations", bbox=[1, 2, 3, None]), "annotation 10: box is not four numbers"),
        (changed("images", file_name="gone.jpg"), "gone.jpg"),
        ({**messy(), "categories": [], "annotations": []}, "no categories"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_and_named(
    tmp_path: Path, content: Any, message: str
) -> None:
    write(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        data.open(f"coco:{tmp_path}", "train")
    assert str(tmp_path) in str(caught.value)


def test_whether_something_is_a_crowd_is_not_guessed(tmp_path: Path) -> None:
    write(tmp_path, changed("annotations", iscrowd="0"))
    notes = data.open(f"coco:{tmp_path}", "train", skippable=1.0).notes
    assert any("iscrowd is neither 0 nor 1" in note and "annotation 10" in note for note in notes)


def test_whole_numbers_may_be_written_with_a_fraction_and_files_with_a_mark(folder: Path) -> None:
    before = data.open(f"coco:{folder}", "train", skippable=1.0).ground_truth()
    floats: Any = json.loads(json.dumps(messy()), parse_int=float)
    write(folder, "\ufeff" + json.dumps(floats))
    after = data.open(f"coco:{folder}", "train", skippable=1.0).ground_truth()
    assert json.dumps(after) == json.dumps(before)


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        data.open(f"coco:{tmp_path / 'nowhere'}", "train")
    with pytest.raises(UserError, match=r"instances_train2017\.json is missing"):
        data.open(f"coco:{tmp_path}", "train")


def test_a_picture_of_another_size_than_its_annotation_is_left_out(folder: Path) -> None:
    Image.new("RGB", (10, 10)).save(folder / "train2017" / "a.jpg")
    dataset = data.open(f"coco:{folder}", "train", skippable=1.0)
    assert [sample.id for sample in dataset] == [7, 90]
    assert "a.jpg cannot be read as a picture: it is 10x10, its annotation 60x40" in str(
        dataset.notes
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "made"
    shapes.write(folder, "tiny", train=5, tune=3, test=4)
    return folder


@pytest.mark.parametrize(("split", "count"), [("train", 5), ("tune", 3), ("test", 4)])
def test_what_is_written_is_read_back(written: Path, split: str, count: int) -> None:
    original = data.open("shapes:tiny", split, limit=count)
    read = data.open(f"coco:{written}", split)
    assert read.ground_truth() == original.ground_truth()
    assert (read.classes, len(read), read.notes) == (original.classes, count, ())
    for index in range(count):
        assert torch.equal(read[index].boxes, original[index].boxes)
        assert torch.equal(read[index].labels, original[index].labels)
        difference = read[index].image.float() - original[index].image.float()
        assert difference.abs().mean() < 4


def test_a_small_data_set_is_decoded_only_once(written: Path) -> None:
    dataset = data.open(f"coco:{written}", "train")
    assert dataset[0].image is dataset[0].image


def test_a_large_data_set_is_not_kept(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detdistill.data.folder.CACHE_BYTES", 1000)
    dataset = data.open(f"coco:{written}", "train")
    assert dataset[0].image is not dataset[0].image


def test_a_folder_with_something_in_it_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        shapes.write(tmp_path, "tiny", train=1, tune=1, test=1)
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


def test_an_interrupted_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("detdistill.data.writing.write_json", fail)
    with pytest.raises(KeyboardInterrupt):
        shapes.write(tmp_path / "made", "tiny", train=1, tune=1, test=1)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_survives_jpeg_with_its_colours(written: Path) -> None:
    file = written / "train2017" / "000000.jpg"
    with Image.open(file) as image:
        pixels = np.array(image, dtype=np.float32)
    original = data.open("shapes:tiny", "train")[0].image.permute(1, 2, 0).numpy()
    assert np.abs(pixels - original).mean() < 4
