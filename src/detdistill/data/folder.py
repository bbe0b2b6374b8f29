"""A data set of picture files, whatever format its annotations are written in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detdistill.data import pictures
from detdistill.data.annotations import Annotations, Defect, Picture
from detdistill.data.dataset import Sample
from detdistill.errors import UserError

CACHE_BYTES = 512 * 2**20
"""Pictures of a data set that fits into this when decoded are decoded only once."""

SKIPPABLE = 0.01
"""Largest share of pictures, and of annotations, that are left out without complaint."""

SHOWN = 3
"""Defects that an error names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """How a data set is to be opened."""

    limit: int | None = None
    """Take only this many pictures, the first ones."""
    skippable: float = SKIPPABLE
    """Largest share of pictures, and of annotations, that may be left out."""
    decode: bool = False
    """Decode every picture now, instead of judging JPEG and PNG files by their ends."""


class PictureFolder:
    """One split of a data set on disk, checked when it is opened.

    Pictures that cannot be read are left out like annotations that cannot be true: listed, and
    refused if they are too many.

    Args:
        truth: what the pictures show.
        files: the file of each of its pictures.
        origin: what errors call the data set.
        opening: how it is to be opened.
        chosen: the places of those pictures that belong to the data set; all if None.
        notes: what a user should know beside what is left out.

    Raises:
        UserError: more than `opening.skippable` had to be left out.
    """

    def __init__(
        self,
        truth: Annotations,
        files: Sequence[Path],
        *,
        origin: Path,
        opening: Opening,
        chosen: Sequence[int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        known = (range(len(files)) if chosen is None else chosen)[: opening.limit]
        sizes = [(truth.pictures[place].width, truth.pictures[place].height) for place in known]
        wrong = pictures.complaints([files[place] for place in known], sizes, decode=opening.decode)
        unread = [Defect("picture", "cannot be used", reason) for reason in wrong.values()]
        places = [place for number, place in enumerate(known) if number not in wrong]
        self.defects = (*truth.defects, *unread)
        _check_share(origin, self.defects, "picture", len(places), opening)
        _check_share(origin, self.defects, "annotation", len(truth.labels), opening)
        self._truth = replace(truth.only(places), defects=())
        self._files = [files[place] for place in places]
        self._notes = tuple(notes)
        decoded = sum(3 * picture.width * picture.height for picture in self._truth.pictures)
        self._kept: dict[int, Tensor] | None = {} if decoded <= CACHE_BYTES else None

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
        """What was left out, and why, and what else is to be known."""
        empty = () if self.objects else ("none of the pictures shows an object",)
        return (*self._notes, *empty, *_summary(self.defects))

    @property
    def objects(self) -> int:
        """How many there are to learn or to find; no crowds."""
        return int((~self._truth.crowd).sum())

    @property
    def left_out(self) -> int:
        """How many pictures cannot be used."""
        return sum(defect.kind == "picture" for defect in self.defects)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows = self._truth.rows(index)
        picture = self._truth.pictures[index]
        return Sample(
            image=self._image(index),
            boxes=_clipped(self._truth.boxes[rows], picture),
            labels=torch.from_numpy(self._truth.labels[rows]),
            crowd=torch.from_numpy(self._truth.crowd[rows]),
            id=picture.id,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the decoded pictures: a worker process decodes its own."""
        return {**self.__dict__, "_kept": None if self._kept is None else {}}

    def file(self, index: int) -> Path:
        """Where a picture is stored."""
        return self._files[index]

    def _image(self, index: int) -> Tensor:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        picture = self._truth.pictures[index]
        image = pictures.read(self._files[index], (picture.width, picture.height))
        if self._kept is not None:
            self._kept[index] = image
        return image

    def ground_truth(self) -> dict[str, Any]:
        """The file's own boxes and areas, without what was left out."""
        images = [
            {"id": p.id, "width": p.width, "height": p.height, "file_name": p.file_name}
            for p in self._truth.pictures
        ]
        truth = self._truth
        named = zip(truth.category_ids, truth.classes, truth.supercategories, strict=True)
        return {
            "images": images,
            "annotations": _as_coco(self._truth),
            "categories": [_category(*of_class) for of_class in named],
        }


def _category(number: int, name: str, supercategory: str | None) -> dict[str, Any]:
    """In COCO's format."""
    found = {"id": number, "name": name}
    return {**found, "supercategory": supercategory} if supercategory else found


def require_folder(folder: Path, what: str) -> None:
    """Raises UserError if there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. {what}")


def _check_share(
    origin: Path, defects: Sequence[Defect], kind: str, used: int, opening: Opening
) -> None:
    """Refuses a data set of which too much had to be left out."""
    wrong = [str(defect) for defect in defects if defect.kind == kind]
    if len(wrong) > opening.skippable * (len(wrong) + used):
        raise too_many(
            f"{origin}: {len(wrong)} of {len(wrong) + used} {kind}s", wrong, opening.skippable
        )


def too_many(what: str, wrong: Sequence[str], skippable: float) -> UserError:
    """The error for more defects than may be skipped.

    Args:
        what: how many of what.
        wrong: the defects, without full stops.
        skippable: the share that may be.
    """
    named = "; ".join(wrong[:SHOWN])
    rest = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return UserError(
        f"{what} cannot be used ({named}{rest}), but only a share of {skippable:g} may be skipped. "
        "Mend what 'detdistill data check' lists, or raise skippable."
    )


def _summary(defects: Sequence[Defect]) -> list[str]:
    """One line per reason, with one of the places."""
    counts = Counter((defect.kind, defect.reason) for defect in defects)
    first = {(defect.kind, defect.reason): defect.where for defect in reversed(defects)}
    return [
        f"{count} {kind}(s) left out: {reason} ({first[kind, reason].rstrip('.')})"
        for (kind, reason), count in counts.items()
    ]


def _clipped(boxes: np.ndarray[Any, np.dtype[np.float64]], picture: Picture) -> Tensor:
    """Left, top, width, height in float64 -> xyxy inside the picture in float32."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    limits = np.array([picture.width, picture.height] * 2)
    return torch.from_numpy(np.clip(corners, 0, limits).astype(np.float32))


def _as_coco(truth: Annotations) -> list[dict[str, Any]]:
    """The annotations, numbered from 1 as COCO's own evaluation requires."""
    return [
        {
            "id": row + 1,
            "image_id": picture.id,
            "category_id": truth.category_ids[truth.labels[row]],
            "bbox": truth.boxes[row].tolist(),
            "area": float(truth.areas[row]),
            "iscrowd": int(truth.crowd[row]),
        }
        for place, picture in enumerate(truth.pictures)
        for row in range(truth.starts[place], truth.starts[place + 1])
    ]
