"""Writes a data set out as a folder in COCO's, Pascal VOC's or YOLO's layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree as ET

import yaml
from PIL import Image

from detdistill.data import coco, pictures, voc, yolo
from detdistill.data.dataset import Dataset, Sample
from detdistill.data.folder import PictureFolder
from detdistill.errors import UserError
from detdistill.files import new_folder, write_json, write_text

Layout = Literal["coco", "voc", "yolo"]
Entry = dict[str, Any]

QUALITY = 95
YEAR = "VOC2007"
"""Where a data set in VOC's layout stands, whatever its age."""


def write(folder: Path, parts: Mapping[str, Dataset], layout: Layout = "coco") -> None:
    """Writes pictures and annotations; the folder appears when it is complete.

    Pictures that are stored as files are copied as they are, others become JPEG files. VOC has no
    crowds, so they become difficult objects; YOLO has neither, so they are lost.

    Args:
        folder: must not exist yet, or be empty.
        parts: `train`, `val`, `test`, or some of them.
        layout: of the folder.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    with new_folder(folder) as temporary:
        _WRITERS[layout](temporary, parts)


class _Written(NamedTuple):
    """A picture that has been written, and its annotations."""

    file: Path
    image: Entry
    annotations: list[Entry]


def _write_coco(folder: Path, parts: Mapping[str, Dataset]) -> None:
    for part, dataset in parts.items():
        truth = dataset.ground_truth()
        written = list(_pictures(coco.picture_folder(folder, part), dataset, part, set()))
        content = {**truth, "images": [picture.image for picture in written]}
        write_json(coco.annotation_file(folder, part), content, compact=True)


def _write_voc(folder: Path, parts: Mapping[str, Dataset]) -> None:
    year, used = folder / YEAR, set[str]()
    classes = _classes(parts)
    for part, dataset in parts.items():
        names = dict(zip(dataset.category_ids, dataset.classes, strict=True))
        written = list(_pictures(year / "JPEGImages", dataset, part, used))
        for picture in written:
            file = voc.Listed(year, picture.file.stem).notes
            write_text(file, _as_xml(picture, names))
        stems = "".join(f"{picture.file.stem}\n" for picture in written)
        write_text(voc.image_list(year, part), stems)
    write_text(folder / voc.CLASS_FILE, "".join(f"{name}\n" for name in classes))


def _as_xml(picture: _Written, names: Mapping[int, str]) -> str:
    """An annotation file; pixels are counted from 1, and the last one belongs to the box."""
    root = ET.Element("annotation")
    _branch(root, {"filename": picture.file.name})
    size = {side: picture.image[side] for side in ("width", "height")}
    _branch(ET.SubElement(root, "size"), {**size, "depth": 3})
    for entry in picture.annotations:
        found = ET.SubElement(root, "object")
        _branch(found, {"name": names[entry["category_id"]], "difficult": entry["iscrowd"]})
        left, top, right, bottom = _inside(entry, picture.image)
        corners = (left + 1, top + 1, right, bottom)
        box = ET.SubElement(found, "bndbox")
        _branch(box, dict(zip(voc.CORNERS, map(_short, corners), strict=True)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _branch(element: ET.Element, content: Mapping[str, object]) -> None:
    for tag, value in content.items():
        ET.SubElement(element, tag).text = str(value)


def _short(number: float) -> str:
    """Without a fraction if there is none."""
    return str(int(number)) if number == int(number) else repr(number)


def _write_yolo(folder: Path, parts: Mapping[str, Dataset]) -> None:
    places = {part: f"images/{part}" for part in parts}
    for part, dataset in parts.items():
        labels = {number: label for label, number in enumerate(dataset.category_ids)}
        for picture in _pictures(folder / places[part], dataset, part, set()):
            lines = (_as_line(entry, picture.image, labels) for entry in picture.annotations)
            write_text(yolo.label_file(picture.file), "".join(filter(None, lines)))
    settings = {**places, "names": dict(enumerate(_classes(parts)))}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_text(folder / yolo.SETTINGS, text)


def _as_line(entry: Entry, image: Entry, labels: Mapping[int, int]) -> str | None:
    """Class, centre and size as shares of the picture; nothing for a crowd."""
    if entry["iscrowd"]:
        return None
    left, top, right, bottom = _inside(entry, image)
    across, down = image["width"], image["height"]
    shares = (
        (left + right) / 2 / across,
        (top + bottom) / 2 / down,
        (right - left) / across,
        (bottom - top) / down,
    )
    return " ".join([str(labels[entry["category_id"]]), *map(repr, map(float, shares))]) + "\n"


def _inside(entry: Entry, image: Entry) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is in the picture; COCO's boxes may reach beyond."""
    left, top, width, height = entry["bbox"]
    right, bottom = min(left + width, image["width"]), min(top + height, image["height"])
    return max(left, 0), max(top, 0), right, bottom


def _classes(parts: Mapping[str, Dataset]) -> tuple[str, ...]:
    """Of all parts, which VOC and YOLO name once."""
    found = {tuple(dataset.classes) for dataset in parts.values()}
    if len(found) != 1:
        raise UserError(
            "The parts of the data set have different classes: "
            f"{'; '.join(', '.join(classes) for classes in sorted(found))}. "
            "Give them one list, which VOC and YOLO need."
        )
    return found.pop()


def _pictures(place: Path, dataset: Dataset, part: str, used: set[str]) -> Iterator[_Written]:
    """Writes one picture after the other into a folder; `used` are the stems that are taken."""
    place.mkdir(parents=True, exist_ok=True)
    truth = dataset.ground_truth()
    annotations: dict[int, list[Entry]] = {image["id"]: [] for image in truth["images"]}
    for entry in truth["annotations"]:
        annotations[entry["image_id"]].append(entry)
    for index, image in enumerate(truth["images"]):
        stored = _stored(dataset, index, image)
        stem = _free(image["file_name"], part, used)
        file = place / f"{stem}{stored.suffix if stored else '.jpg'}"
        if stored:
            shutil.copyfile(stored, file)
        else:
            _encode(file, dataset[index])
        yield _Written(file, {**image, "file_name": file.name}, annotations[image["id"]])


def _stored(dataset: Dataset, index: int, image: Entry) -> Path | None:
    """The picture's file, if whoever reads it will see the size of the annotation."""
    if not isinstance(dataset, PictureFolder):
        return None
    file = dataset.file(index)
    return file if pictures.upright_size(file) == (image["width"], image["height"]) else None


def _free(name: str, part: str, used: set[str]) -> str:
    """A stem in one folder that no other picture has, whatever ending that has."""
    plain = str(Path(name).with_suffix("")).replace("/", "_")
    numbered = (f"{part}_{plain}_{number}" for number in count(2))
    stem = next(s for s in chain([plain, f"{part}_{plain}"], numbered) if s not in used)
    used.add(stem)
    return stem


def _encode(path: Path, sample: Sample) -> None:
    """With full colour resolution, since half of it would blur the smallest objects' colours."""
    pixels = sample.image.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(path, "JPEG", quality=QUALITY, subsampling=0)


_WRITERS: Mapping[Layout, Callable[[Path, Mapping[str, Dataset]], None]] = {
    "coco": _write_coco,
    "voc": _write_voc,
    "yolo": _write_yolo,
}
