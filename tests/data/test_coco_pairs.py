"""`coco:` of any annotation file and the folder of its pictures."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from detdistill import data
from detdistill.cli import main
from detdistill.errors import UserError

COUNT = 60


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Ids with gaps, a crowd region, pictures without objects, all in one file."""
    pictures = tmp_path / "all pictures, ü"
    pictures.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (20, 10)).save(pictures / f"{number}.png")
    write(tmp_path / "labels.json", range(COUNT))
    return tmp_path


def write(file: Path, numbers: range) -> None:
    box = {"category_id": 7, "bbox": [1, 1, 5, 5], "iscrowd": 0}
    content: dict[str, Any] = {
        "images": [
            {"id": 1000 - 3 * n, "file_name": f"{n}.png", "width": 20, "height": 10}
            for n in numbers
        ],
        "annotations": [
            {**box, "id": 5 * n + 1, "image_id": 1000 - 3 * n, "iscrowd": int(n % 5 == 0)}
            for n in numbers
            if n % 3
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}],
    }
    file.write_text(json.dumps(content))


def names(name: str, split: str) -> list[str]:
    return [i["file_name"] for i in data.open(name, split).ground_truth()["images"]]


def test_one_pair_is_divided_by_the_names_of_its_pictures(place: Path) -> None:
    name = f"coco:{place}/labels.json,{place}/all pictures, ü"
    parts = [names(name, split) for split in data.SPLITS]
    assert sorted(chain(*parts)) == sorted(f"{n}.png" for n in range(COUNT))
    assert [len(part) for part in parts] == [45, 5, 10]
    assert data.splits(name) == list(data.SPLITS)
    note = data.open(name, "test").notes
    assert note == ("10 of 60 pictures, chosen by their names, are the test split",)


def test_a_picture_stays_in_its_split_whatever_others_there_are(place: Path) -> None:
    name = f"coco:{place}/labels.json,{place}/all pictures, ü"
    before = {split: names(name, split) for split in data.SPLITS}
    write(place / "labels.json", range(20, COUNT))
    for split in data.SPLITS:
        assert names(name, split) == [n for n in before[split] if int(n[:-4]) >= 20]


def test_objects_follow_their_pictures(place: Path) -> None:
    dataset = data.open(f"coco:{place}/labels.json,{place}/all pictures, ü", "tune")
    images = dataset.ground_truth()["images"]
    for sample, image in zip(dataset, images, strict=True):
        number = int(image["file_name"][:-4])
        assert sample.id == 1000 - 3 * number
        assert len(sample.labels) == int(number % 3 > 0)
        assert sample.crowd.tolist() == [number % 5 == 0] * len(sample.labels)
    assert dataset.category_ids == (7, 90)


def test_pictures_lie_beside_their_annotations_if_nothing_else_is_said(place: Path) -> None:
    (place / "labels.json").rename(place / "all pictures, ü" / "labels.json")
    assert len(data.open(f"coco:{place}/all pictures, ü/labels.json", "train")) == 45


def test_a_yaml_file_names_a_pair_for_each_split(place: Path) -> None:
    for part, numbers in {"a": range(10), "b": range(10, 14)}.items():
        write(place / f"{part}.json", numbers)
    pairs = {part: f"{file}.json,all pictures, ü" for part, file in (("train", "a"), ("val", "b"))}
    (place / "data.yaml").write_text(yaml.safe_dump(pairs, allow_unicode=True))
    name = f"coco:{place}/data.yaml"
    assert [len(names(name, split)) for split in data.SPLITS] == [10, 4, 4]
    assert data.splits(name) == ["train", "tune"]
    assert data.open(name, "test").notes == ("the data set has no such part; val stands in",)


@pytest.mark.parametrize(
    "content", ["train: pictures", "- 1", "", "other: a.json,b", "{train: {a: b}}"]
)
def test_a_yaml_file_of_something_else_is_refused(place: Path, content: str) -> None:
    (place / "data.yaml").write_text(content)
    with pytest.raises(UserError, match=r"data\.yaml .*train: ANNOTATIONS\.json,PICTURES"):
        data.open(f"coco:{place}/data.yaml", "train")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coco:{}/nowhere.json", "There is no file .*nowhere.json"),
        ("coco:{}/labels.json,{}/nowhere", "no folder .*nowhere"),
        ("coco:{}/nowhere.yaml", "There is no file .*nowhere.yaml"),
        ("coco:{}/nowhere", "no folder .*nowhere.*ANNOTATIONS.json,PICTURES"),
        ("coco:{}", "instances_train2017.json is missing.*ANNOTATIONS.json,PICTURES"),
        ("coco:", "coco:ANNOTATIONS.json,PICTURES"),
    ],
)
def test_what_is_missing_is_named(place: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data.open(name.replace("{}", str(place)), "train")


def test_too_few_pictures_to_hold_some_out_are_refused(place: Path) -> None:
    write(place / "labels.json", range(1))
    with pytest.raises(UserError, match=r"too few to hold some out for test.*coco:FILE\.yaml"):
        data.open(f"coco:{place}/labels.json,{place}/all pictures, ü", "test")


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_a_check_of_a_folder_that_is_not_there_says_so(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", f"{kind}:{tmp_path}/nowhere"]) == 2
    said = capsys.readouterr().err
    assert "There is no " in said
    assert f"{tmp_path}/nowhere" in said


def test_a_check_of_one_pair_names_a_defect_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((place / "labels.json").read_text())
    content["annotations"][0]["bbox"][2] = -1
    (place / "labels.json").write_text(json.dumps(content))
    assert main(["data", "check", f"coco:{place}/labels.json,{place}/all pictures, ü"]) == 1
    said = capsys.readouterr()
    assert "\n1 defect(s)" in said.out
    assert said.err.count("box has no area") == 1
