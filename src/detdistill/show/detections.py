"""Draws boxes on images: the truth, a detector's finds, and which of these are right."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import matplotlib as mpl
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detdistill.boxes import from_coco, pairwise_iou
from detdistill.show import colors
from detdistill.structures import Detections

RIGHT_IOU = 0.5
TRUTH, CORRECT, WRONG, MISSED = colors.SKY, colors.GREEN, colors.ORANGE, colors.WHITE
_MEANINGS = {
    "truth": TRUTH,
    f"correct (IoU ≥ {RIGHT_IOU})": CORRECT,
    "wrong": WRONG,
    "missed": MISSED,
}
_DASH, _GAP = 7, 5
_MARGIN = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """What one picture shows, or what a detector says it shows; finds are best first."""

    boxes: Tensor
    """(N, 4) xyxy in pixels of the image."""
    labels: Sequence[int]
    """Class numbers."""
    scores: Sequence[float] | None = None
    """None for the truth."""

    @classmethod
    def from_coco(cls, notes: Iterable[Mapping[str, Any]], category_ids: Sequence[int]) -> Self:
        """From one image's annotations or results in COCO's format; crowd regions are left out."""
        real = [note for note in notes if not note.get("iscrowd")]
        kept = sorted(real, key=lambda note: -note.get("score", 1.0))
        boxes = [note["bbox"] for note in kept]
        corners = from_coco(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        scored = bool(kept) and "score" in kept[0]
        return cls(
            boxes=corners,
            labels=[category_ids.index(note["category_id"]) for note in kept],
            scores=[note["score"] for note in kept] if scored else None,
        )

    @classmethod
    def from_detections(cls, found: Detections, index: int) -> Self:
        """What a detector found in image `index` of a batch."""
        count = int(found.counts[index])
        return cls(
            boxes=found.boxes[index, :count].float().cpu(),
            labels=found.labels[index, :count].tolist(),
            scores=found.scores[index, :count].tolist(),
        )

    def at_least(self, score: float) -> Self:
        """Those whose score is not below this; all of the truth, which has no scores."""
        if self.scores is None:
            return self
        kept = [place for place, own in enumerate(self.scores) if own >= score]
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=[self.labels[place] for place in kept],
            scores=[self.scores[place] for place in kept],
        )

    def scaled(self, scale: float) -> Self:
        """Boxes as they lie in a resized image."""
        return replace(self, boxes=self.boxes * scale)


class Match(NamedTuple):
    """Which finds are right, and which objects nobody found."""

    correct: list[bool]
    missed: list[bool]


def match(found: Objects, truth: Objects, iou: float = RIGHT_IOU) -> Match:
    """Gives each object to the best-scored find of its class that overlaps it by at least `iou`.

    As COCO does: finds choose in the order of their scores, each the object it overlaps most.
    """
    overlaps = pairwise_iou(found.boxes, truth.boxes).tolist()
    scores = found.scores or [1.0] * len(found.labels)
    free = set(range(len(truth.labels)))
    correct = [False] * len(found.labels)
    for find in sorted(range(len(scores)), key=lambda find: -scores[find]):
        fitting = [
            (overlaps[find][i], i)
            for i in free
            if truth.labels[i] == found.labels[find] and overlaps[find][i] >= iou
        ]
        if fitting:
            correct[find] = True
            free.remove(max(fitting)[1])
    return Match(correct, [i in free for i in range(len(truth.labels))])


def draw(
    image: Tensor,
    objects: Objects,
    classes: Sequence[str],
    *,
    truth: Objects | None = None,
    width: int = 384,
) -> Image.Image:
    """An image with boxes, their class names and scores on it.

    With `truth`, green boxes are right, orange ones are wrong, and dashed white ones were missed.
    Without it, finds have a colour per class; objects without scores, the truth, are light blue.

    Args:
        image: (3, H, W) uint8 RGB.
        objects: what to draw.
        classes: names of the classes.
        truth: what is really there.
        width: of the picture in pixels; images are enlarged or reduced to it.
    """
    scale = width / image.shape[-1]
    picture = _resized(image, scale)
    marks = [mark.scaled(scale) for mark in _marks(objects, classes, truth)]
    canvas = ImageDraw.Draw(picture)
    line = max(2, width // 128)
    for mark in marks:
        _draw_box(canvas, mark, line)
    _draw_names(canvas, picture.size, marks, _font(max(10, width // 32)))
    return picture


def side_by_side(panels: Mapping[str, Image.Image], *, legend: bool = True) -> Image.Image:
    """Pictures next to each other, each under its title, as one picture."""
    font = _font(16)
    width, height = map(max, zip(*(panel.size for panel in panels.values()), strict=True))
    head, foot = 2 * _MARGIN + 16, (2 * _MARGIN + 16 if legend else _MARGIN)
    across = _MARGIN + len(panels) * (width + _MARGIN)
    sheet = Image.new("RGB", (across, head + height + foot), colors.WHITE)
    canvas = ImageDraw.Draw(sheet)
    for number, (title, panel) in enumerate(panels.items()):
        left = _MARGIN + number * (width + _MARGIN)
        canvas.text((left, head / 2), title, colors.BLACK, font, anchor="lm")
        sheet.paste(panel, (left, head))
    if legend:
        _draw_legend(canvas, _MARGIN, head + height + foot // 2)
    return sheet


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file's content."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


class _Mark(NamedTuple):
    """One box as it will be drawn."""

    box: tuple[float, ...]
    text: str
    color: str
    dashed: bool = False

    def scaled(self, scale: float) -> _Mark:
        return self._replace(box=tuple(side * scale for side in self.box))


def _marks(objects: Objects, classes: Sequence[str], truth: Objects | None) -> list[_Mark]:
    """Worst first, so that the best are drawn over them."""
    paints = _paints(objects)
    missed: list[_Mark] = []
    if truth is not None:
        judged = match(objects, truth)
        paints = [CORRECT if right else WRONG for right in judged.correct]
        named = zip(truth.boxes.tolist(), _names(truth, classes), judged.missed, strict=True)
        missed = [_Mark(tuple(b), name, MISSED, dashed=True) for b, name, lost in named if lost]
    named_finds = zip(objects.boxes.tolist(), _names(objects, classes), paints, strict=True)
    finds = [_Mark(tuple(box), name, color) for box, name, color in named_finds]
    return missed + finds[::-1]


def _paints(objects: Objects) -> list[str]:
    """A colour per class for finds, one colour for the truth."""
    if objects.scores is None:
        return [TRUTH] * len(objects.labels)
    return [colors.of(label) for label in objects.labels]


def _names(objects: Objects, classes: Sequence[str]) -> list[str]:
    """Class and score: `striped star 87%`."""
    names = [classes[label] for label in objects.labels]
    if objects.scores is None:
        return names
    return [f"{name} {score:.0%}" for name, score in zip(names, objects.scores, strict=True)]


def _resized(image: Tensor, scale: float) -> Image.Image:
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)


def _draw_box(canvas: ImageDraw.ImageDraw, mark: _Mark, line: int) -> None:
    """A frame with a thin dark edge, which shows on any background."""
    left, top, right, bottom = mark.box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    sides = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    strokes = [part for side in sides for part in (_dashes(*side) if mark.dashed else [side])]
    for color, thickness in ((colors.BLACK, line + 2), (mark.color, line)):
        for stroke in strokes:
            canvas.line(stroke, color, thickness)


Point = tuple[float, float]


def _dashes(start: Point, end: Point) -> list[tuple[Point, Point]]:
    """The stretches of a dashed line."""
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])
    steps = range(0, int(length), _DASH + _GAP)

    def at(distance: float) -> Point:
        share = min(1.0, distance / length)
        return (
            start[0] + share * (end[0] - start[0]),
            start[1] + share * (end[1] - start[1]),
        )

    return [(at(step), at(step + _DASH)) for step in steps]


def _draw_names(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    marks: Sequence[_Mark],
    font: ImageFont.FreeTypeFont,
) -> None:
    """Names near their boxes, the best find's first, where they hide no other name if possible."""
    taken: list[tuple[float, ...]] = []
    for mark in reversed(marks):
        width, height = canvas.textlength(mark.text, font) + 6, font.size + 4
        place = _place(mark.box, (width, height), size, taken)
        taken.append(place)
        canvas.rectangle(place, mark.color)
        middle = (place[0] + 3, (place[1] + place[3]) / 2)
        canvas.text(middle, mark.text, colors.ink(mark.color), font, anchor="lm")


def _place(
    box: tuple[float, ...],
    name: tuple[float, float],
    size: tuple[int, int],
    taken: Sequence[tuple[float, ...]],
) -> tuple[float, ...]:
    """A rectangle for a name inside the picture: above its box, below it, or inside."""
    (left, top, right, bottom), (width, height) = box, name
    spots = [
        (x, y) for y in (top - height, bottom, top, bottom - height) for x in (left, right - width)
    ]
    fitted = [_inside(spot, name, size) for spot in spots]
    free = (spot for spot in fitted if not any(_overlap(spot, other) for other in taken))
    return next(free, fitted[0])


def _inside(spot: Point, name: Point, size: tuple[int, int]) -> tuple[float, ...]:
    """The rectangle at a spot, pushed back into the picture."""
    left = max(0.0, min(spot[0], size[0] - name[0]))
    top = max(0.0, min(spot[1], size[1] - name[1]))
    return (left, top, left + name[0], top + name[1])


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_legend(canvas: ImageDraw.ImageDraw, left: float, middle: float) -> None:
    font = _font(13)
    for meaning, color in _MEANINGS.items():
        box = (left, middle - 7, left + 26, middle + 7)
        _draw_box(canvas, _Mark(box, meaning, color, dashed=color == MISSED), 3)
        canvas.text((left + 34, middle), meaning, colors.BLACK, font, anchor="lm")
        left += 34 + canvas.textlength(meaning, font) + 24


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and writes most alphabets."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
