"""What was found in pictures as files: COCO's results, YOLO's texts, drawn pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from detdistill import data as datasets
from detdistill.boxes import to_centers, to_coco
from detdistill.classes import match, shortened
from detdistill.cli.verbs import Format
from detdistill.data.folder import PictureFolder
from detdistill.errors import UserError
from detdistill.files import replace_file, write_json, write_text
from detdistill.show.detections import Objects, draw

Entry = dict[str, Any]


class Prediction(NamedTuple):
    """A picture, and what was found in it."""

    file: Path
    image: Tensor
    """(3, H, W) uint8, as in the file."""
    objects: Objects


class Ids(NamedTuple):
    """The numbers that pictures and classes have in COCO's results."""

    pictures: Mapping[Path, int]
    classes: Sequence[int]
    """Of each class number."""


def own_ids(files: Sequence[Path], classes: Sequence[str]) -> Ids:
    """Both counted from 1; a picture that cannot be read keeps its number."""
    return Ids(
        {file: number for number, file in enumerate(files, start=1)},
        range(1, len(classes) + 1),
    )


def ids_of(data: str, split: str, files: Sequence[Path], classes: Sequence[str]) -> Ids:
    """Those that a data set has for its pictures and classes.

    Raises:
        UserError: the data set is not on disk or lacks some of the classes.
    """
    dataset = datasets.open(data, split, skippable=1.0)
    if not isinstance(dataset, PictureFolder):
        raise UserError(f"{data} has no picture files, so none can have an id there.")
    same = match(classes, dataset.classes)
    if same.extra:
        raise UserError(
            f"{data} has no ids for these classes of the detector: {shortened(same.extra)}."
        )
    categories = {their: dataset.category_ids[my] for their, my in same.pairs}
    return Ids(_picture_ids(dataset, files), [categories[label] for label in range(len(classes))])


def _picture_ids(dataset: PictureFolder, files: Sequence[Path]) -> dict[Path, int]:
    """That of the data set's file itself, or else of its only file with the same name.

    Pictures that are not in the data set have none, nor those that share their name with another of
    `files`, where it is not known which of them is meant.
    """
    places = {dataset.file(i).resolve(): entry["id"] for i, entry in _images(dataset)}
    names = dict[str, list[int]]()
    for place, number in places.items():
        names.setdefault(place.name, []).append(number)
    only = {name: found[0] for name, found in names.items() if len(found) == 1}
    own = {file: places[file.resolve()] for file in files if file.resolve() in places}
    alike = {file: only[file.name] for file in files if file not in own and file.name in only}
    uses = Counter([*own.values(), *alike.values()])
    sure = {file: number for file, number in alike.items() if uses[number] == 1}
    return own | sure


def _images(dataset: PictureFolder) -> Iterator[tuple[int, Entry]]:
    return enumerate(dataset.ground_truth()["images"])


@dataclass(kw_only=True)
class Results:
    """Predictions on their way to files; `finish` writes what needs them all, in their order."""

    folder: Path
    formats: Sequence[Format]
    classes: Sequence[str]
    ids: Ids
    stems: Mapping[Path, str]
    """Of all pictures, in the order in which they are asked for."""
    score: float
    """Detections below this are not drawn."""
    images: list[Entry] = field(default_factory=list)
    detections: list[Entry] = field(default_factory=list)
    """COCO's results."""

    def add(self, found: Prediction) -> None:
        """Writes what is of one picture alone, and keeps the rest."""
        number = self.ids.pictures[found.file]
        height, width = found.image.shape[-2:]
        self.images.append(
            {"id": number, "file_name": str(found.file), "width": width, "height": height}
        )
        self.detections += (
            {"image_id": number, "category_id": self.ids.classes[label], "bbox": box, "score": sure}
            for label, sure, box in _rows(found.objects, lambda b: to_coco(b.double()))
        )
        for name in self.formats:
            if name in _OF_PICTURES:
                _OF_PICTURES[name](self, found)

    def finish(self, skipped: Mapping[str, str]) -> dict[str, Any]:
        """Everything but the detections, as it is written to `images.json`.

        Args:
            skipped: by path, why a picture was left out.
        """
        files = [file for file in self.stems if file in self.ids.pictures]
        order = {self.ids.pictures[file]: place for place, file in enumerate(files)}
        self.images.sort(key=lambda entry: order[entry["id"]])
        self.detections.sort(key=lambda entry: order[entry["image_id"]])
        categories = [
            {"id": number, "name": name}
            for number, name in zip(self.ids.classes, self.classes, strict=True)
        ]
        story = {"images": self.images, "categories": categories, "skipped": dict(skipped)}
        write_json(self.folder / "images.json", story)
        if "coco" in self.formats:
            write_json(self.folder / "detections.json", self.detections, compact=True)
        if "yolo" in self.formats:
            names = "".join(f"{name}\n" for name in self.classes)
            write_text(self.folder / "classes.txt", names)
        return story

    def write_text(self, found: Prediction) -> None:
        """A line per object: class number, centre and extent as shares of the picture, score."""
        height, width = found.image.shape[-2:]
        extent = found.objects.boxes.new_tensor([width, height, width, height])
        lines = (
            " ".join([str(label), *(f"{number:.6f}" for number in [*box, sure])]) + "\n"
            for label, sure, box in _rows(found.objects, lambda b: to_centers(b) / extent)
        )
        write_text(self.folder / "labels" / f"{self.stems[found.file]}.txt", "".join(lines))

    def draw(self, found: Prediction) -> None:
        """A copy of the picture with boxes, class names and scores."""
        shown = found.objects.at_least(self.score)
        picture = draw(found.image, shown, self.classes, width=found.image.shape[-1])
        place = self.folder / "pictures" / f"{self.stems[found.file]}.png"
        replace_file(place, lambda file: picture.save(file, format="PNG"))


_OF_PICTURES: Mapping[Format, Callable[[Results, Prediction], None]] = {
    "yolo": Results.write_text,
    "pictures": Results.draw,
}


def _rows(
    objects: Objects, form: Callable[[Tensor], Tensor]
) -> Iterator[tuple[int, float, list[float]]]:
    """Label, score and four numbers of each object; `form` makes them of the corners."""
    return zip(objects.labels, objects.scores or [], form(objects.boxes).tolist(), strict=True)
