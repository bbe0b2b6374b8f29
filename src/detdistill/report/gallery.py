"""Pictures: the truth and each detector's detections on the same test images, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detdistill import data
from detdistill.errors import UserError
from detdistill.report.inline import data_uri, webp
from detdistill.report.numbers import counted, joined
from detdistill.report.runs import Run
from detdistill.show import detections as show
from detdistill.show.detections import Objects
from detdistill.show.picks import SCORE, Pick, most_different

_COUNT = 8
_WIDTH = 448
"""Pixels of a panel: twice its width on the page, for dense screens and print."""
_KEY = (
    (show.TRUTH, "truth"),
    (show.CORRECT, "right"),
    (show.WRONG, "wrong"),
    (show.MISSED, "missed (dashed)"),
)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One drawn image, ready for an `img` element."""

    name: str
    verdict: str
    """Objects found and false alarms; for the truth, how many objects there are."""
    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """The same image several times."""

    name: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """All rows, or why there are none."""

    heading: str = "Where the detectors differ"
    rule: str = (
        "The test images on which the most objects are found by one of these detectors and missed "
        "by another. A rule picked them, not a person: they show differences, not typical images."
    )
    rows: tuple[Row, ...] = ()
    missing: str = ""
    score: float = SCORE
    key: tuple[tuple[str, str], ...] = _KEY
    """Colours of boxes and what they mean."""


def gallery(runs: Mapping[str, Run]) -> Gallery:
    """Some images of the runs' common test data on which they differ most.

    Pixels come from the data set that the runs name; if it is not there, the page says so.
    """
    if len({run.test for run in runs.values()}) > 1:
        return Gallery(missing="The runs were tested on different images: none can be compared.")
    found = {name: run.detections() for name, run in runs.items()}
    silent = [name for name, results in found.items() if not results]
    if silent:
        return Gallery(missing=f"No detections.json, or an empty one, for {joined(silent)}.")
    try:
        rows = tuple(_rows(next(iter(runs.values())), found))
    except UserError as error:
        return Gallery(missing=f"The test images cannot be shown: {error}")
    if not rows:
        return Gallery(missing="The detectors make the same of every test image.")
    return Gallery(rows=rows) if len(runs) > 1 else _failures(rows)


def _failures(rows: tuple[Row, ...]) -> Gallery:
    """The pictures of a single detector."""
    return Gallery(
        heading="Where the detector fails",
        rule="The test images with the most missed objects and false alarms together. "
        "A rule picked them, not a person: they show failures, not typical images.",
        rows=rows,
    )


def _rows(run: Run, found: Mapping[str, Sequence[dict[str, Any]]]) -> list[Row]:
    name, split, images = run.test
    dataset = data.tested(name, split, images)
    truth = dataset.ground_truth()
    try:
        picks = most_different(truth, found, _COUNT)
    except ValueError as error:
        raise UserError(f"the detections know classes that {name} does not ({error}).") from error
    return [_row(dataset, truth["images"][pick.position], pick) for pick in picks]


def _row(dataset: data.Dataset, image: Mapping[str, Any], pick: Pick) -> Row:
    """One image: the truth, then every detector."""
    pixels = dataset[pick.position].image
    scale = pixels.shape[-1] / image["width"]
    name = f"Image {image['id']}"

    def panel(title: str, objects: Objects, verdict: str, truth: Objects | None) -> Panel:
        picture = show.draw(pixels, objects, dataset.classes, truth=truth, width=_WIDTH)
        return Panel(
            name=title,
            verdict=verdict,
            uri=data_uri(webp(picture), "webp"),
            alt=f"{name}, {title}: {_in_words(objects, dataset.classes)}. {verdict}.",
            width=picture.width,
            height=picture.height,
        )

    truth = pick.truth.scaled(scale)
    found = [
        panel(title, objects.scaled(scale), _verdict(pick, title), truth)
        for title, objects in pick.finds.items()
    ]
    objects = counted(len(truth.labels), "object")
    return Row(name=name, panels=(panel("Ground truth", truth, objects, None), *found))


def _verdict(pick: Pick, name: str) -> str:
    outcome = pick.outcome(name)
    alarms = counted(outcome.false_alarms, "false alarm")
    return f"{len(outcome.found)} of {len(pick.truth.labels)} found, {alarms}"


def _in_words(objects: Objects, classes: Sequence[str]) -> str:
    """What the boxes say: `2 striped discs and 1 solid ring`, without the plural."""
    counts = Counter(classes[label] for label in objects.labels)
    return joined([f"{n} {name}" for name, n in counts.most_common()]) or "no boxes"
