"""Data sets on disk with annotations in COCO's format.

A place is one of
- a folder in the layout of 2017: annotations/instances_train2017.json beside train2017/;
- `ANNOTATIONS.json,PICTURES`, any file and the folder of its pictures, by default its own: a tenth
  of the pictures, chosen by their names, is held out for tuning, a tenth for testing;
- a YAML file that gives such a pair for each of `train`, `val` and `test`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from detdistill.data.annotations import Annotations, read
from detdistill.data.folder import Opening, PictureFolder, require_folder
from detdistill.errors import UserError
from detdistill.files import read_yaml

PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "tune": ("val",),
    "test": ("test", "val"),
}
"""In which part of a data set a split is: the first that there is."""

HELD_OUT: Mapping[str, tuple[float, float]] = {
    "tune": (0.0, 0.1),
    "test": (0.1, 0.2),
    "train": (0.2, 1.0),
}
"""From which to which share a split reaches where one pair is all there is."""

LISTS = {".yaml", ".yml"}


class Pair(NamedTuple):
    """An annotation file, and the folder that its file names are relative to."""

    annotations: Path
    pictures: Path


def annotation_file(folder: Path, part: str) -> Path:
    """Where a folder in COCO's layout has the annotations of `train`, `val` or `test`."""
    return folder / "annotations" / f"instances_{part}2017.json"


def picture_folder(folder: Path, part: str) -> Path:
    """Where a folder in COCO's layout has the pictures of `train`, `val` or `test`."""
    return folder / f"{part}2017"


def open_split(place: Path, split: str, opening: Opening) -> PictureFolder:
    """One split of a data set.

    Raises:
        UserError: a folder or a file is missing, the annotations make no sense, or too many of
            them or of the pictures cannot be used.
    """
    if pair := _pair(str(place)):
        return _open(pair, opening, held_out=split)
    pairs = _pairs(place)
    part = next((part for part in PARTS[split] if part in pairs), None)
    if part is None:
        raise UserError(_nothing(place, split))
    notes = [] if part == PARTS[split][0] else [f"the data set has no such part; {part} stands in"]
    return _open(pairs[part], opening, notes=notes)


def splits(place: Path) -> list[str]:
    """The splits that have a part of their own.

    Raises:
        UserError: there is no such place.
    """
    if _pair(str(place)):
        return list(PARTS)
    pairs = _pairs(place)
    return [split for split, parts in PARTS.items() if parts[0] in pairs]


def _pair(text: str, base: Path = Path()) -> Pair | None:
    """`FILE.json` or `FILE.json,FOLDER`, relative to a base; None for anything else."""
    name, ending, folder = text.partition(".json,")
    if not ending and not text.endswith(".json"):
        return None
    file = base / Path(name + ".json" if ending else text).expanduser()
    return Pair(file, base / Path(folder).expanduser() if folder else file.parent)


def _pairs(place: Path) -> dict[str, Pair]:
    """What a folder or a YAML file has, by the name of the part."""
    if place.suffix in LISTS:
        return _listed(place)
    require_folder(
        place,
        "Give one that contains 'annotations', or ANNOTATIONS.json,PICTURES, or a YAML file with "
        "such a pair for train and val.",
    )
    return {
        part: Pair(annotation_file(place, part), picture_folder(place, part))
        for part in ("train", "val", "test")
        if annotation_file(place, part).is_file()
    }


def _listed(file: Path) -> dict[str, Pair]:
    content = read_yaml(file)
    given = content if isinstance(content, dict) else {}
    pairs = {part: _pair(str(pair), file.parent) for part, pair in given.items()}
    found = {part: pair for part, pair in pairs.items() if pair}
    if not found or found.keys() != pairs.keys() or not found.keys() <= {"train", "val", "test"}:
        raise UserError(
            f"{file} does not describe a data set: it needs lines such as "
            "'train: ANNOTATIONS.json,PICTURES', likewise for val and test."
        )
    return found


def _nothing(place: Path, split: str) -> str:
    wanted = PARTS[split][-1]
    if place.suffix in LISTS:
        return f"{place} has no pictures for {split}: it lacks a line '{wanted}: ...'."
    return (
        f"{place} has no annotations for {split}: {annotation_file(place, wanted)} is missing. "
        "A folder in COCO's layout has annotations/instances_train2017.json and train2017/, and "
        "likewise with val2017; of other files write coco:ANNOTATIONS.json,PICTURES."
    )


def _open(
    pair: Pair, opening: Opening, *, held_out: str | None = None, notes: Sequence[str] = ()
) -> PictureFolder:
    """The pictures of a pair, or the share of them that is held out for a split."""
    truth = read(pair.annotations)
    require_folder(pair.pictures, "The pictures should be there.")
    chosen: Sequence[int] = range(len(truth.pictures))
    if held_out:
        chosen, notes = _share(pair.annotations, truth, held_out)
    return PictureFolder(
        truth,
        [pair.pictures / picture.file_name for picture in truth.pictures],
        origin=pair.annotations,
        opening=opening,
        chosen=chosen,
        notes=notes,
    )


def _share(file: Path, truth: Annotations, split: str) -> tuple[list[int], list[str]]:
    """The places of a split's pictures, and what is to be known of that."""
    low, high = HELD_OUT[split]
    names = [picture.file_name for picture in truth.pictures]
    chosen = [place for place, name in enumerate(names) if low <= _lot(name) < high]
    if not chosen:
        raise UserError(
            f"{file} has {len(names)} picture(s), too few to hold some out for {split}. Name train "
            "and val apart, in a YAML file with a line for each, as coco:FILE.yaml."
        )
    note = f"{len(chosen)} of {len(names)} pictures, chosen by their names, are the {split} split"
    return chosen, [note]


def _lot(name: str) -> float:
    """From 0 to 1, of the name alone: no other picture moves this one to another split."""
    return int.from_bytes(blake2b(name.encode(), digest_size=6).digest()) / 2**48
