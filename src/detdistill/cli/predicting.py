"""Runs a detector on picture files, a few of one size at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from detdistill.cli import pictures, ready
from detdistill.cli.predictions import Ids, Prediction, Results, ids_of, own_ids
from detdistill.cli.verbs import Format
from detdistill.cli.waiting import counting
from detdistill.data import Resize
from detdistill.data import pictures as reading
from detdistill.data.transforms import scale
from detdistill.errors import UserError
from detdistill.evaluate import Detector, alike, detect, padded_extent
from detdistill.files import new_folder, require_new_folder
from detdistill.show.detections import Objects

SHOWN_FAILURES = 3


class Seen(NamedTuple):
    """A picture that could be read."""

    file: Path
    image: Tensor
    """(3, H, W) uint8, as in the file."""
    resized: Tensor
    """(3, H', W'), as the detector sees it."""


def predict(
    checkpoint: str,
    paths: Sequence[str],
    out: Path,
    *,
    formats: Sequence[Format],
    score: float,
    batch_size: int,
    data: str | None,
    split: str,
) -> dict[str, Any]:
    """See `verbs.predict`.

    Raises:
        UserError: there is no checkpoint or no picture, none of the pictures can be read, the
            folder is occupied, or the data set does not fit.
    """
    require_new_folder(out)
    if batch_size < 1:
        raise UserError(f"A batch of {batch_size} pictures is none: give --batch_size 1 or more.")
    detector, resize = ready.load(checkpoint)
    files, classes = pictures.find(paths), detector.spec.classes
    ids = ids_of(data, split, files, classes) if data else own_ids(files, classes)
    canvas = resize.canvas if resize else 0
    skipped: dict[str, str] = {}
    with new_folder(out) as folder, counting(len(files), "pictures") as advance:
        results = Results(
            folder=folder,
            formats=formats,
            classes=classes,
            ids=ids,
            stems=pictures.stems(files),
            score=score,
        )
        seen = _read(files, ids, resize, skipped)
        for batch in alike(seen, batch_size, lambda one: padded_extent(one.resized, canvas)):
            for found in _found(detector, batch, canvas):
                results.add(found)
            advance(len(results.images) + len(skipped))
        if not results.images:
            raise UserError(_nothing_readable(list(skipped.values())))
        story = results.finish(skipped)
    return {**story, "detections": results.detections}


def _read(
    files: Sequence[Path], ids: Ids, resize: Resize | None, skipped: dict[str, str]
) -> Iterator[Seen]:
    """The pictures that can be read and have an id; the others are put into `skipped`."""
    for file in files:
        if file not in ids.pictures:
            skipped[str(file)] = f"{file} is not a picture of the data set, or not the only such."
            continue
        try:
            image = reading.read(file)
        except UserError as error:
            skipped[str(file)] = str(error)
            continue
        yield Seen(file, image, resize.picture(image) if resize else image)


def _found(detector: Detector, batch: Sequence[Seen], canvas: int) -> Iterator[Prediction]:
    found = detect(detector, [seen.resized for seen in batch], canvas=canvas)
    for index, seen in enumerate(batch):
        objects = Objects.from_detections(found, index)
        boxes = objects.boxes * scale(seen.resized, seen.image)
        yield Prediction(seen.file, seen.image, replace(objects, boxes=boxes))


def _nothing_readable(reasons: Sequence[str]) -> str:
    rest = f" And {len(reasons) - SHOWN_FAILURES} more." if len(reasons) > SHOWN_FAILURES else ""
    return f"No picture can be used. {' '.join(reasons[:SHOWN_FAILURES])}{rest}"
