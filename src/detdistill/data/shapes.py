"""The built-in data set: upright shapes on textured backgrounds, drawn when they are asked for.

Every picture is a function of (seed, split, index) alone, so there is nothing to download and no
file, and no picture of one split is in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detdistill.data import scenes, writing
from detdistill.data.dataset import Sample
from detdistill.data.scenes import Scene
from detdistill.errors import unknown_name

STREAMS = {"train": 0, "tune": 1, "test": 2}
"""Every split draws from a random stream of its own."""

MEDIUM = Scene()


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A scene, and how many pictures of it each split has."""

    scene: Scene = MEDIUM
    train: int = 4000
    tune: int = 500
    test: int = 500


SMALL = Scene(side=96, objects=(1, 5), sizes=(10.0, 76.0))

LEVELS: dict[str, Level] = {
    "easy": Level(
        scene=Scene(
            objects=(1, 5), hue_spread=0.03, clutter=(0, 3), overlap=0.1, visible=0.8,
            contrast=0.4, noise=0.015,
        )
    ),
    "medium": Level(),
    "hard": Level(
        scene=Scene(
            objects=(2, 10), hue_spread=0.16, clutter=(5, 12), overlap=0.55, visible=0.4,
            contrast=0.12, noise=0.045,
        )
    ),
    "few": Level(train=300),
    "tiny": Level(scene=SMALL, train=2000, tune=200, test=200),
    "short": Level(scene=SMALL, train=2000),
}  # fmt: skip
"""Difficulty levels by name. `few` shows the pictures of `medium`, but only 300 for training;
`short` those of `tiny`, but more for tuning and testing."""


class Shapes:
    """The built-in data set at one level. Pictures are kept once they are drawn."""

    classes = scenes.CLASSES
    category_ids = tuple(range(1, len(scenes.CLASSES) + 1))
    notes: tuple[str, ...] = ()
    left_out = 0

    def __init__(self, level: Level, split: str, limit: int | None = None, seed: int = 0) -> None:
        self._scene = level.scene
        self._key = (seed, STREAMS[split])
        count = {"train": level.train, "tune": level.tune, "test": level.test}[split]
        self._count = count if limit is None else min(count, limit)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return scenes.draw(self._scene, *self._key, index)

    def ground_truth(self) -> dict[str, Any]:
        """The truth in COCO's format; an object's area is its box's."""
        side = self._scene.side
        images = [
            {"id": index, "width": side, "height": side, "file_name": f"{index:06d}.jpg"}
            for index in range(self._count)
        ]
        samples = [self[index] for index in range(self._count)]
        objects = [(sample, row) for sample in samples for row in range(len(sample.labels))]
        annotations = [
            _annotation(number, sample, row)
            for number, (sample, row) in enumerate(objects, start=1)
        ]
        categories = [
            {"id": number, "name": name, "supercategory": outline}
            for number, name, (_, outline) in zip(
                self.category_ids, self.classes, scenes.KINDS, strict=True
            )
        ]
        return {"images": images, "annotations": annotations, "categories": categories}


def find(name: str) -> Level:
    """The level with this name.

    Raises:
        UserError: there is none.
    """
    if name not in LEVELS:
        raise unknown_name("level of shapes", name, LEVELS)
    return LEVELS[name]


def _annotation(number: int, sample: Sample, row: int) -> dict[str, Any]:
    left, top, right, bottom = sample.boxes[row].tolist()
    width, height = right - left, bottom - top
    return {
        "id": number,
        "image_id": sample.id,
        "category_id": int(sample.labels[row]) + 1,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def write(
    folder: Path,
    level: str = "medium",
    *,
    layout: writing.Layout = "coco",
    train: int | None = None,
    tune: int | None = None,
    test: int | None = None,
) -> None:
    """Writes a level out as a folder in COCO's, VOC's or YOLO's layout, to be read from there.

    The tuning split becomes `val`. The counts limit the splits' pictures.

    Raises:
        UserError: there is no such level, or the folder is not empty or cannot be written.
    """
    known = find(level)
    parts = {
        "train": Shapes(known, "train", train),
        "val": Shapes(known, "tune", tune),
        "test": Shapes(known, "test", test),
    }
    writing.write(folder, parts, layout)
