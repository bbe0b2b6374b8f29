"""Data sets on disk in COCO's layout: annotations/instances_train2017.json beside train2017/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detdistill.data import pictures
from detdistill.data.annotations import Annotations, Picture, read
from detdistill.data.dataset import Sample
from detdistill.errors import UserError

PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "tune": ("val",),
    "test": ("test", "val"),
}
"""In which part of the folder a split is: the first whose annotations exist."""

CACHE_BYTES = 512 * 2**20
"""Pictures of a data set that fits into this when decoded are decoded only once."""


def annotation_file(folder: Path, part: str) -> Path:
    """Where the annotations of `train`, `val` or `test` are."""
    return folder / "annotations" / f"instances_{part}2017.json"


def picture_folder(folder: Path, part: str) -> Path:
    """Where the pictures of `train`, `val` or `test` are."""
    return folder / f"{part}2017"


class CocoFolder:
    """One split of a folder in COCO's layout, checked when it is opened."""

    def __init__(self, folder: Path, split: str, limit: int | None = None) -> None:
        """Reads and checks the annotations, and that every picture is there.

        Raises:
            UserError: the folder, a file or a picture is missing, or the annotations make no sense.
        """
        part = _existing_part(folder, split)
        self._replaced = part if part != PARTS[split][0] else None
        self._truth = read(annotation_file(folder, part))
        self._pictures = self._truth.pictures[:limit]
        self._folder = picture_folder(folder, part)
        decoded = sum(3 * picture.width * picture.height for picture in self._pictures)
        self._kept: dict[int, Tensor] | None = {} if decoded <= CACHE_BYTES else None
        pictures.check_all(self._folder, [picture.file_name for picture in self._pictures])

    @property
    def classes(self) -> tuple[str, ...]:
        """Category names, in the order of their ids."""
        return self._truth.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's id of each class; COCO's have gaps."""
        return self._truth.category_ids

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether another part stands in; how many annotations were left out, and why."""
        part = self._replaced
        instead = (f"the folder has no such part; {part}2017 stands in",) if part else ()
        left_out = (
            f"{count} annotation(s) left out: {reason}"
            for reason, count in self._truth.dropped.items()
        )
        return (*instead, *left_out)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows = self._truth.rows(index)
        return Sample(
            image=self._image(index),
            boxes=_clipped(self._truth.boxes[rows], self._pictures[index]),
            labels=torch.from_numpy(self._truth.labels[rows]),
            crowd=torch.from_numpy(self._truth.crowd[rows]),
            id=self._pictures[index].id,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the decoded pictures: a worker process decodes its own."""
        return {**self.__dict__, "_kept": None if self._kept is None else {}}

    def _image(self, index: int) -> Tensor:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        picture = self._pictures[index]
        size = (picture.width, picture.height)
        image = pictures.read(self._folder / picture.file_name, size)
        if self._kept is not None:
            self._kept[index] = image
        return image

    def ground_truth(self) -> dict[str, Any]:
        """The file's own boxes and areas, without the annotations that were left out."""
        images = [
            {"id": p.id, "width": p.width, "height": p.height, "file_name": p.file_name}
            for p in self._pictures
        ]
        return {
            "images": images,
            "annotations": _as_coco(self._truth, len(self)),
            "categories": [
                {"id": number, "name": name}
                for number, name in zip(self.category_ids, self.classes, strict=True)
            ],
        }


def _existing_part(folder: Path, split: str) -> str:
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Give the one that contains 'annotations'.")
    parts = PARTS[split]
    for part in parts:
        if annotation_file(folder, part).is_file():
            return part
    raise UserError(
        f"{folder} has no annotations for {split}: "
        f"{annotation_file(folder, parts[-1])} is missing. "
        "A folder in COCO's layout has annotations/instances_train2017.json and train2017/, "
        "and likewise with val2017."
    )


def _clipped(boxes: np.ndarray[Any, np.dtype[np.float64]], picture: Picture) -> Tensor:
    """Left, top, width, height in float64 -> xyxy inside the picture in float32."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    limits = np.array([picture.width, picture.height] * 2)
    return torch.from_numpy(np.clip(corners, 0, limits).astype(np.float32))


def _as_coco(truth: Annotations, images: int) -> list[dict[str, Any]]:
    """The annotations of the first images, numbered from 1 as COCO's own evaluation requires."""
    return [
        {
            "id": row + 1,
            "image_id": truth.pictures[image].id,
            "category_id": truth.category_ids[truth.labels[row]],
            "bbox": truth.boxes[row].tolist(),
            "area": float(truth.areas[row]),
            "iscrowd": int(truth.crowd[row]),
        }
        for image in range(images)
        for row in range(truth.starts[image], truth.starts[image + 1])
    ]
