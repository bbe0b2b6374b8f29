"""Gathers a data set that has a file per picture, in the form of COCO's one file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detdistill.data.annotations import Annotations, Defect, checked
from detdistill.data.pictures import Size


@dataclass
class Draft:
    """Pictures and objects as they are read, one picture after the other.

    A picture's id is its place in the list, so it does not depend on what is wrong with others.
    """

    classes: Sequence[str]
    files: list[Path] = field(default_factory=list)
    """Of the pictures that are not rejected."""
    defects: list[Defect] = field(default_factory=list)
    _images: list[dict[str, Any]] = field(default_factory=list)
    _objects: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file: Path, name: str, size: Size, objects: Iterable[dict[str, Any]]) -> None:
        """A picture and its objects, which lack nothing but their picture's id."""
        number = self._next()
        width, height = size
        self.files.append(file)
        self._images.append({"id": number, "file_name": name, "width": width, "height": height})
        self._objects += [{**entry, "image_id": number} for entry in objects]

    def reject(self, error: Exception) -> None:
        """A picture that cannot be used."""
        self.defects.append(Defect("picture", "cannot be used", str(error)))

    def table(self, path: Path) -> Annotations:
        """What was gathered, checked; a class's category id is its number, from 1."""
        categories = [{"id": n, "name": name} for n, name in enumerate(self.classes, start=1)]
        content = {
            "images": self._images,
            "annotations": self._objects,
            "categories": categories,
        }
        return checked(content, path, self.defects)

    def _next(self) -> int:
        return len(self._images) + len(self.defects) + 1
