"""The same test pictures as every detector sees them, where the detectors differ most.

Source: TID, figure 5; CrossKD, figure 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from matplotlib.figure import Figure as Drawing
from PIL import Image

from detdistill.explain.figure import Figure, FigureUnavailableError, Row
from detdistill.explain.subject import Subject
from detdistill.show import detections as show
from detdistill.show.picks import SCORE, Pick

_WORDS = (
    "What each detector finds in the pictures on which they differ most",
    "most objects found by one and missed by another; they show differences, not typical pictures",
)
_WORDS_OF_ONE = (
    "What the detector finds in the pictures on which it fails most",
    "most missed objects and false alarms; they show failures, not typical pictures",
)
_WIDTH = 448
_PANEL = 2.3
"""Inches."""


def figures(subject: Subject) -> Iterator[Figure]:
    """One sheet: a row per picture, the truth and then every detector."""
    picks = subject.picks
    if not picks:
        raise FigureUnavailableError("The detectors make the same of every picture.")
    title, rule = _WORDS if len(subject.labels) > 1 else _WORDS_OF_ONE
    yield Figure(
        name="pictures",
        title=title,
        caption="Green boxes are right (their class, IoU of at least 0.5 with an object), orange "
        f"ones wrong, white dashed objects were missed; scores below {SCORE} are left out. A rule "
        f"picked these pictures, not a person: {rule}.",
        source="TID, figure 5; CrossKD, figure 8",
        alt="; ".join(_in_words(subject, pick) for pick in picks),
        rows=[row for pick in picks for row in _rows(subject, pick)],
        draw=lambda: _draw(subject, picks),
    )


def _rows(subject: Subject, pick: Pick) -> Iterator[Row]:
    """A detector's outcome on a picture."""
    for label in subject.labels:
        outcome = pick.outcome(label)
        yield {
            "image": subject.truth["images"][pick.position]["id"],
            "detector": label,
            "objects": len(pick.truth.labels),
            "found": len(outcome.found),
            "false_alarms": outcome.false_alarms,
        }


def _in_words(subject: Subject, pick: Pick) -> str:
    rows = list(_rows(subject, pick))
    said = ", ".join(f"{row['detector']} finds {row['found']}" for row in rows)
    return f"Picture {rows[0]['image']} with {rows[0]['objects']} objects: {said}"


def _draw(subject: Subject, picks: list[Pick]) -> Drawing:
    columns = 1 + len(subject.labels)
    drawing = Drawing(figsize=(columns * _PANEL, len(picks) * (_PANEL + 0.25)))
    for row, pick in enumerate(picks):
        for column, (title, picture) in enumerate(_panels(subject, pick).items(), start=1):
            axes = drawing.add_subplot(len(picks), columns, row * columns + column)
            axes.imshow(picture)
            axes.set_title(title)
            axes.axis("off")
    return drawing


def _panels(subject: Subject, pick: Pick) -> Mapping[str, Image.Image]:
    """Drawn pictures by their titles."""
    image, classes = subject.dataset[pick.position].image, subject.dataset.classes
    scale = image.shape[-1] / subject.truth["images"][pick.position]["width"]
    truth = pick.truth.scaled(scale)
    panels = {f"truth: {len(truth.labels)} objects": show.draw(image, truth, classes, width=_WIDTH)}
    for label, found in pick.finds.items():
        outcome = pick.outcome(label)
        title = f"{label}: {len(outcome.found)} found, {outcome.false_alarms} false"
        panels[title] = show.draw(image, found.scaled(scale), classes, truth=truth, width=_WIDTH)
    return panels
