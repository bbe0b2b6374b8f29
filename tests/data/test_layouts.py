"""Pascal VOC and YOLO folders, and the way from one layout to another."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from detdistill import data
from detdistill.data import shapes, voc, writing
from detdistill.data.yolo import label_file
from detdistill.errors import UserError

NAMES = {"coco": "coco:{}", "voc": "voc:{}", "yolo": "yolo:{}/data.yaml"}
COUNTS = {"train": 4, "tune": 2, "test": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same pictures in each layout, by its name."""
    place = tmp_path_factory.mktemp("layouts")
    for layout in NAMES:
        shapes.write(place / layout, "tiny", layout=layout, **COUNTS)
    return {layout: name.format(place / layout) for layout, name in NAMES.items()}


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("layout", NAMES)
def test_what_is_written_is_read_back(folders: dict[str, str], layout: str, split: str) -> None:
    original = data.open("shapes:tiny", split, limit=COUNTS[split])
    read = data.open(folders[layout], split)
    assert (read.classes, len(read), read.notes) == (original.classes, COUNTS[split], ())
    for mine, theirs in zip(read, original, strict=True):
        assert torch.allclose(mine.boxes, theirs.boxes, atol=1e-4)
        assert torch.equal(mine.labels, theirs.labels)
        assert (mine.image.float() - theirs.image.float()).abs().mean() < 4


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("source", NAMES)
def test_from_any_layout_to_any_other_pictures_and_objects_stay(
    folders: dict[str, str], source: str, layout: Any, tmp_path: Path
) -> None:
    parts = {part: data.open(folders[source], part) for part in ("train", "val")}
    writing.write(tmp_path / "new folder ü", parts, layout)
    name = NAMES[layout].format(tmp_path / "new folder ü")
    for part, dataset in parts.items():
        read = data.open(name, part)
        assert read.classes == dataset.classes
        for mine, theirs in zip(read, dataset, strict=True):
            assert torch.equal(mine.image, theirs.image)
            assert torch.allclose(mine.boxes, theirs.boxes, atol=1e-4)
            assert torch.equal(mine.labels, theirs.labels)


def an_object(name: str, box: tuple[float, ...], *, difficult: int = 0) -> str:
    corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(voc.CORNERS, box, strict=True))
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox></object>"
    )


def add_to_voc(year: Path, part: str, name: str, objects: str, size: tuple[int, int]) -> None:
    for place in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (year / place).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(year / "JPEGImages" / f"{name}.jpg")
    width, height = size
    (year / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>"
    )
    with (year / "ImageSets" / "Main" / f"{part}.txt").open("a") as file:
        file.write(f"{name}\n")


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """The layout of 2007 and 2012 side by side."""
    old, new = tmp_path / "VOC2007", tmp_path / "VOC2012"
    hard = an_object("dog", (1, 1, 10, 10), difficult=1)
    add_to_voc(old, "trainval", "000005", an_object("cat", (3, 4, 12, 23)) + hard, (40, 30))
    add_to_voc(old, "test", "000001", an_object("dog", (1, 1, 40, 30)), (40, 30))
    add_to_voc(new, "trainval", "2008_000002", an_object("tvmonitor", (1, 1, 5, 5)), (20, 20))
    add_to_voc(new, "val", "2008_000002", an_object("tvmonitor", (1, 1, 5, 5)), (20, 20))
    return tmp_path


def test_voc_trains_on_both_years_and_tests_on_the_first(devkit: Path) -> None:
    files = {
        split: [
            image["file_name"]
            for image in data.open(f"voc:{devkit}", split).ground_truth()["images"]
        ]
        for split in data.SPLITS
    }
    assert files["train"] == ["000005.jpg", "2008_000002.jpg"]
    assert files["test"] == ["000001.jpg"]
    assert files["tune"] == files["test"], "val is part of trainval"
    assert data.open(f"voc:{devkit}", "tune").notes == (
        "the folder has no such part; test stands in",
    )
    assert data.splits(f"voc:{devkit}") == ["train", "test"]


def test_voc_counts_pixels_from_one_and_ignores_difficult_objects(devkit: Path) -> None:
    dataset = data.open(f"voc:{devkit}", "train")
    assert dataset.classes == voc.CLASSES
    assert dataset[0].boxes.tolist() == [[2, 3, 12, 23], [0, 0, 10, 10]]
    assert dataset[0].crowd.tolist() == [False, True]
    assert [dataset.classes[label] for label in dataset[0].labels] == ["cat", "dog"]


def test_voc_with_other_classes_says_where_they_are_listed(devkit: Path) -> None:
    add_to_voc(devkit / "VOC2007", "test", "000001", an_object("kite", (1, 1, 9, 9)), (40, 30))
    dataset = data.open(f"voc:{devkit}", "test", skippable=1.0)
    assert "(kite; a classes.txt beside the years lists the classes)" in dataset.notes[-1]
    assert "none of the pictures shows an object" in dataset.notes
    (devkit / voc.CLASS_FILE).write_text("cat\nkite\n")
    for name in (f"voc:{devkit}", f"voc:{devkit / 'VOC2007'}"):
        assert data.open(name, "test").classes == ("cat", "kite")


@pytest.mark.parametrize("layout", ["voc", "yolo"])
def test_boxes_that_reach_out_of_their_pictures_are_cut_off_for_tools_that_refuse_them(
    folders: dict[str, str], layout: Any, tmp_path: Path
) -> None:
    class Reaching:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __len__(self) -> int:
            return len(self.inner)

        def __getitem__(self, index: int) -> Any:
            return self.inner[index]

        def ground_truth(self) -> dict[str, Any]:
            truth: dict[str, Any] = self.inner.ground_truth()
            truth["annotations"][0]["bbox"] = [-5.0, 20.0, 1000.0, 10.0]
            return truth

    parts = {"train": Reaching(data.open(folders["coco"], "train"))}
    writing.write(tmp_path / "made", parts, layout)  # type: ignore[arg-type]
    sample = data.open(NAMES[layout].format(tmp_path / "made"), "train").ground_truth()
    side = sample["images"][0]["width"]
    assert sample["annotations"][0]["bbox"] == pytest.approx([0, 20, side, 10])


def test_a_difficult_object_is_still_one_after_a_way_through_coco(
    devkit: Path, tmp_path: Path
) -> None:
    train = data.open(f"voc:{devkit}", "train")
    writing.write(tmp_path / "as-coco", {"train": train}, "coco")
    as_coco = data.open(f"coco:{tmp_path / 'as-coco'}", "train")
    assert as_coco.ground_truth() == train.ground_truth()
    writing.write(tmp_path / "as-voc", {"train": as_coco}, "voc")
    again = data.open(f"voc:{tmp_path / 'as-voc'}", "train")
    assert again.ground_truth() == train.ground_truth()


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A data.yaml with a folder for training and a list for the rest."""
    for name, size in {"images/a b.png": (40, 20), "images/sub/c.jpg": (10, 10)}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(file)
        label_file(file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "labels/a b.txt").write_text("1 0.5 0.5 0.5 0.5\n\n0 0 0 0.5 0 0.5 1 0 1\n")
    (tmp_path / "val.txt").write_text("images/sub/c.jpg\n")
    settings = {"train": "images", "val": "val.txt", "names": {1: "b", 0: "a"}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "data.yaml"


def test_yolo_reads_boxes_polygons_and_pictures_without_labels(labelled: Path) -> None:
    dataset = data.open(f"yolo:{labelled}", "train")
    assert dataset.classes == ("a", "b")
    assert dataset[0].boxes.tolist() == [[10, 5, 30, 15], [0, 0, 20, 20]]
    assert dataset[0].labels.tolist() == [1, 0]
    assert dataset[1].boxes.shape == (0, 4)
    assert len(data.open(f"yolo:{labelled.parent}", "val")) == 1
    assert "val stands in" in data.open(f"yolo:{labelled}", "test").notes[0]


def test_labels_lie_where_the_last_folder_of_images_was() -> None:
    assert label_file(Path("/images/x/images/train/a.jpg")) == Path("/images/x/labels/train/a.txt")
    assert label_file(Path("/pictures/a.jpg")) == Path("/pictures/a.txt")


def test_pictures_of_one_name_do_not_replace_each_other(tmp_path: Path, labelled: Path) -> None:
    parts = {part: data.open(f"yolo:{labelled}", "val") for part in ("train", "val", "test")}
    writing.write(tmp_path / "new", parts, "voc")
    names = sorted(file.name for file in (tmp_path / "new/VOC2007/JPEGImages").iterdir())
    assert names == ["c.jpg", "test_c.jpg", "val_c.jpg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as YAML"),
        ("- 1", "does not describe a data set"),
        ("train: images", "'names' must list"),
        ("names: [a]", "it lacks train"),
        ("{train: nowhere, names: [a]}", "no folder"),
        ("{train: nowhere.txt, names: [a]}", "no file"),
        ("{train: images, names: {1: a}}", "'names' must list"),
    ],
)
def test_a_data_yaml_that_makes_no_sense_is_refused(
    labelled: Path, content: str, message: str
) -> None:
    labelled.write_text(content)
    with pytest.raises(UserError, match=message):
        data.open(f"yolo:{labelled}", "train")


@pytest.mark.parametrize("name", ["voc", "yolo", "voc:nowhere", "yolo:nowhere", "voc:."])
def test_a_place_without_a_data_set_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"There is no|missing|layout"):
        data.open(name, "train")
