"""What is found in the wild: each is read rightly, or named and left out, or refused by name."""

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detdistill import data
from detdistill.cli import main
from detdistill.data import shapes
from detdistill.errors import UserError

SIDE = 96
COUNT = 3
PLACES = {
    "coco": ("coco:{}", "train2017/000001.jpg", "annotations/instances_train2017.json"),
    "voc": ("voc:{}", "VOC2007/JPEGImages/000001.jpg", "VOC2007/Annotations/000001.xml"),
    "yolo": ("yolo:{}/data.yaml", "images/train/000001.jpg", "labels/train/000001.txt"),
}
"""Name, the picture that is broken, and its annotations in each layout."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("originals")
    for layout in PLACES:
        shapes.write(place / layout, "tiny", layout=layout, train=COUNT, tune=1, test=1)
    return {layout: place / layout for layout in PLACES}


@pytest.fixture
def copies(originals: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(layout: str) -> Path:
        return Path(shutil.copytree(originals[layout], tmp_path / f"mit Umlaut ü {layout}"))

    return copy


def image(mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    return Image.new(mode, size, 1)


def encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    note = Image.Exif()
    note[0x0112] = orientation
    return note


def flipped_byte(content: bytes) -> bytes:
    """Wrong in the middle, right at both ends."""
    middle = content.index(b"IDAT") + 8
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def png(side: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A file with any header, also one that Pillow would not write."""
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )


READABLE: dict[str, bytes] = {
    "CMYK": encoded(image("CMYK"), "JPEG"),
    "grey": encoded(image("L"), "JPEG"),
    "16-bit grey": encoded(Image.fromarray(np.ones((SIDE, SIDE), np.uint16)), "PNG"),
    "16-bit colours": png(SIDE, 16, 2, bytes(1 + 6 * SIDE) * SIDE),
    "grey with transparency": encoded(image("LA"), "PNG"),
    "several pictures of a camera": encoded(image(), "MPO", save_all=True, append_images=[image()]),
    "BMP": encoded(image(), "BMP"),
    "TIFF": encoded(image(), "TIFF"),
    "palette": encoded(image("P"), "PNG"),
    "palette with transparency": encoded(image("P"), "PNG", transparency=0),
    "one bit": encoded(image("1"), "PNG"),
    "RGBA": encoded(image("RGBA"), "PNG"),
    "animated GIF": encoded(image(), "GIF", save_all=True, append_images=[image("L")]),
    "animated WebP": encoded(image(), "WEBP", save_all=True, append_images=[image("L")]),
    "animated PNG": encoded(image(), "PNG", save_all=True, append_images=[image()]),
    "turned by its camera": encoded(image(), "JPEG", exif=turned(6)),
    "impossible camera note": encoded(image(), "JPEG", exif=turned(77)),
    "progressive JPEG": encoded(image(), "JPEG", progressive=True),
    "WebP named jpg": encoded(image(), "WEBP"),
    "bytes after the end": encoded(image(), "JPEG") + b"\0" * 20,
}

UNREADABLE: dict[str, bytes] = {
    "zero bytes": b"",
    "one byte": b"\xff",
    "text": b"<html>404 not found</html>",
    "header only": encoded(image(), "JPEG")[:200],
    "cut off JPEG": encoded(image(), "JPEG")[:-30],
    "cut off PNG": encoded(image(), "PNG")[:-30],
    "cut off GIF": encoded(image(), "GIF")[:-30],
    "32-bit values": encoded(image("F"), "TIFF"),
    "another size": encoded(image(size=(40, 30)), "JPEG"),
    "zeros": b"\0" * 4000,
    "no pixels": png(SIDE, 8, 2, b"")[:-12],
    "claims ten thousand megapixels": png(100_000, 8, 2, b""),
}

Record = dict[str, Any]
BOXES: dict[str, list[float]] = {
    "outside": [500, 500, 10, 10],
    "left of it": [-50, 0, 10, 10],
    "negative size": [30, 30, -5, -5],
    "zero area": [10, 10, 0, 5],
    "NaN": [float("nan"), 1, 5, 5],
    "infinite": [1, 1, float("inf"), 5],
    "beyond all numbers": [1, 1, 10**400, 5],
}

ENTRIES: dict[str, Record] = {
    "unknown picture": {"image_id": 12345},
    "unknown category": {"category_id": 777},
    "repeated id": {"id": 1},
}

FILES: dict[str, str] = {
    "not JSON": "{'images': []",
    "empty file": "",
    "nested without end": "[" * 200_000,
    "objects nested without end": '{"images": ' * 200_000,
    "bytes of no text": "\0" * 1000,
    "a list": "[]",
    "pictures are numbers": '{"images": [1], "annotations": [], "categories": []}',
    "no categories": '{"images": [], "annotations": [], "categories": []}',
    "huge id": '{"images": [{"id": 1e999}], "annotations": [], "categories": []}',
}

XML: dict[str, str] = {
    "not XML": "<annotation><size>",
    "empty": "",
    "no size": "<annotation></annotation>",
    "size is words": "<annotation><size><width>a</width><height>b</height></size></annotation>",
    "nested without end": "<a>" * 200_000,
    "bytes of no text": "\0" * 1000,
    "entities": '<!DOCTYPE a [<!ENTITY b "cc">]><annotation>&b;</annotation>',
}


def corners(*sides: object) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return "".join(f"<{n}>{s}</{n}>" for n, s in zip(names, sides, strict=False))


OBJECTS: dict[str, tuple[str, str]] = {
    "reversed": ("solid square", corners(50, 9, 20, 40)),
    "outside": ("solid square", corners(500, 9, 520, 40)),
    "NaN": ("solid square", corners("nan", 9, 20, 40)),
    "words": ("solid square", corners("a", 9, 20, 40)),
    "missing corner": ("solid square", corners(1, 9, 20)),
    "unknown class": ("unicorn", corners(1, 9, 20, 40)),
}

NAMES: dict[str, str] = {
    "with a zero byte": "a\0.jpg",
    "half a character": "\ud800.jpg",
    "far too long": "a" * 5000,
    "a folder": ".",
    "nothing": "",
}

LINES: dict[str, str] = {
    "unknown class": "99 0.5 0.5 0.1 0.1",
    "negative class": "-1 0.5 0.5 0.1 0.1",
    "class is a word": "cat 0.5 0.5 0.1 0.1",
    "too few numbers": "0 0.5 0.5",
    "no number": "0 0.5 x 0.1 0.1",
    "NaN": "0 nan 0.5 0.1 0.1",
    "outside": "0 1.5 0.5 0.1 0.1",
    "reversed": "0 0.5 0.5 -0.1 0.1",
    "in pixels": "0 320 240 50 50",
}


def name_of(layout: str, folder: Path) -> str:
    return PLACES[layout][0].format(folder)


def assert_neighbours_are_unharmed(layout: str, folder: Path, original: Path) -> None:
    """Whatever was done to the second picture."""
    mine = data.open(name_of(layout, folder), "train", skippable=1.0)
    theirs = data.open(name_of(layout, original), "train")
    kept = {sample.id: sample for sample in mine}
    for place in (0, 2):
        sample = kept[theirs[place].id]
        assert torch.equal(sample.image, theirs[place].image)
        assert torch.equal(sample.boxes, theirs[place].boxes)


def assert_found(layout: str, folder: Path, where: str) -> None:
    """Refused with the place, and with the place left out if that much may be."""
    with pytest.raises(UserError, match="cannot be used") as caught:
        data.open(name_of(layout, folder), "train")
    assert where in str(caught.value)
    notes = data.open(name_of(layout, folder), "train", skippable=1.0).notes
    assert any("left out" in note and where in note for note in notes)


@pytest.mark.parametrize("kind", READABLE)
def test_an_unusual_picture_is_read(
    kind: str, copies: Callable[[str], Path], originals: dict[str, Path]
) -> None:
    folder = copies("coco")
    (folder / PLACES["coco"][1]).write_bytes(READABLE[kind])
    dataset = data.open(name_of("coco", folder), "train")
    assert dataset[1].image.shape == (3, SIDE, SIDE)
    assert_neighbours_are_unharmed("coco", folder, originals["coco"])


def test_a_picture_of_thirty_megapixels_is_read(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    Image.new("1", (6000, 5000)).save(file)
    assert data.pictures.complaints([file], [(6000, 5000)], decode=False) == {}
    assert data.pictures.read(file).shape == (3, 5000, 6000)


@pytest.mark.parametrize("layout", ["coco", "yolo"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_picture_is_found(
    kind: str, layout: str, copies: Callable[[str], Path], originals: dict[str, Path]
) -> None:
    if (kind, layout) == ("another size", "yolo"):
        pytest.skip("YOLO does not say the size")
    folder = copies(layout)
    (folder / PLACES[layout][1]).write_bytes(UNREADABLE[kind])
    assert_found(layout, folder, PLACES[layout][1])
    assert_neighbours_are_unharmed(layout, folder, originals[layout])


def test_a_picture_that_is_wrong_in_the_middle_is_found_by_decoding(
    copies: Callable[[str], Path],
) -> None:
    folder = copies("coco")
    (folder / PLACES["coco"][1]).write_bytes(flipped_byte(encoded(image(), "PNG")))
    opening = data.Opening(skippable=1.0, decode=True)
    dataset = data.open_files(name_of("coco", folder), "train", opening)
    assert [Path(defect.where.split(" cannot")[0]).name for defect in dataset.defects] == [
        "000001.jpg"
    ]


@pytest.mark.parametrize("wrong", [*({"bbox": box} for box in BOXES.values()), *ENTRIES.values()])
def test_an_annotation_that_cannot_be_true_is_found(
    wrong: Record, copies: Callable[[str], Path], originals: dict[str, Path]
) -> None:
    folder = copies("coco")
    file = folder / PLACES["coco"][2]
    content = json.loads(file.read_text())
    usual = {"id": 999, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
    content["annotations"].append({**usual, **wrong})
    file.write_text(json.dumps(content))
    assert_found("coco", folder, f"annotation {wrong.get('id', 999)}")
    assert_neighbours_are_unharmed("coco", folder, originals["coco"])


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_that_no_picture_can_have_is_found(
    kind: str, copies: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copies("coco")
    file = folder / PLACES["coco"][2]
    content = json.loads(file.read_text())
    content["images"][1]["file_name"] = NAMES[kind]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="1 of 3 pictures cannot be used"):
        data.open(name_of("coco", folder), "train")
    assert len(data.open(name_of("coco", folder), "train", skippable=1.0)) == 2
    assert main(["data", "check", name_of("coco", folder)]) == 1
    assert "1 defect(s)" in capsys.readouterr().out


@pytest.mark.parametrize("kind", FILES)
def test_an_annotation_file_that_makes_no_sense_is_refused(
    kind: str, copies: Callable[[str], Path]
) -> None:
    file = copies("coco") / PLACES["coco"][2]
    file.write_text(FILES[kind])
    with pytest.raises(UserError) as caught:
        data.open(name_of("coco", file.parents[1]), "train", skippable=1.0)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("kind", XML)
def test_an_annotation_of_voc_that_makes_no_sense_is_found(
    kind: str, copies: Callable[[str], Path], originals: dict[str, Path]
) -> None:
    folder = copies("voc")
    (folder / PLACES["voc"][2]).write_text(XML[kind])
    assert_found("voc", folder, PLACES["voc"][2])
    assert_neighbours_are_unharmed("voc", folder, originals["voc"])


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_of_voc_that_cannot_be_true_is_found(
    kind: str, copies: Callable[[str], Path], originals: dict[str, Path]
) -> None:
    folder, (name, box) = copies("voc"), OBJECTS[kind]
    file = folder / PLACES["voc"][2]
    added = f"<object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"
    file.write_text(file.read_text().replace("</annotation>", added))
    assert_found("voc", folder, f"{PLACES['voc'][2]}, object ")
    assert_neighbours_are_unharmed("voc", folder, originals["voc"])


@pytest.mark.parametrize("kind", LINES)
def test_a_line_of_yolo_that_cannot_be_true_is_found(
    kind: str, copies: Callable[[str], Path], originals: dict[str, Path]
) -> None:
    folder = copies("yolo")
    (folder / PLACES["yolo"][2]).write_text(f"{LINES[kind]}\n")
    assert_found("yolo", folder, f"{PLACES['yolo'][2]}, line 1")
    assert_neighbours_are_unharmed("yolo", folder, originals["yolo"])
