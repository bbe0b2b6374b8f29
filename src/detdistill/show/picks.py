"""Which test images to show: by rule, those on which detectors differ, or on which one fails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detdistill.show.detections import Objects, match

Json = dict[str, Any]

SCORE = 0.3
"""Detections below this are neither drawn nor counted."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one detector made of one image."""

    found: frozenset[int]
    """Which of the image's objects, by position."""
    false_alarms: int


@dataclass(frozen=True, kw_only=True)
class Pick:
    """An image, what is on it, and what each detector made of it."""

    position: int
    """In the data set and in the list of images of its ground truth."""
    truth: Objects
    finds: Mapping[str, Objects]

    def outcome(self, name: str) -> Outcome:
        """Counts what the detector called `name` found."""
        judged = match(self.finds[name], self.truth)
        return Outcome(
            found=frozenset(i for i, missed in enumerate(judged.missed) if not missed),
            false_alarms=judged.correct.count(False),
        )

    def mistakes(self) -> int:
        """Objects missed and false alarms, of all detectors together."""
        outcomes = [self.outcome(name) for name in self.finds]
        objects = len(self.truth.labels)
        return sum(objects - len(made.found) + made.false_alarms for made in outcomes)

    def disagreement(self) -> tuple[int, int]:
        """Objects that some found and some missed; then the range of false alarms."""
        outcomes = [self.outcome(name) for name in self.finds]
        found = [outcome.found for outcome in outcomes]
        alarms = [outcome.false_alarms for outcome in outcomes]
        disputed = frozenset.union(*found) - frozenset.intersection(*found)
        return len(disputed), max(alarms) - min(alarms)


def most_different(
    ground_truth: Json, detections: Mapping[str, Sequence[Json]], count: int
) -> list[Pick]:
    """The images of a COCO ground truth on which the named detectors differ most.

    At most `count`, and none on which they agree. Of a single detector, those on which it makes
    the most mistakes.

    Raises:
        ValueError: a detection has a category that the ground truth does not know.
    """
    categories = [category["id"] for category in ground_truth["categories"]]
    truth = _by_image(ground_truth["annotations"])
    found = {name: _by_image(results) for name, results in detections.items()}
    picks = [
        Pick(
            position=position,
            truth=Objects.from_coco(truth[image["id"]], categories),
            finds={
                name: Objects.from_coco(results[image["id"]], categories).at_least(SCORE)
                for name, results in found.items()
            },
        )
        for position, image in enumerate(ground_truth["images"])
    ]
    if len(detections) == 1:
        return sorted(picks, key=Pick.mistakes, reverse=True)[:count]
    differing = [pick for pick in picks if pick.disagreement() > (0, 0)]
    return sorted(differing, key=Pick.disagreement, reverse=True)[:count]


def _by_image(notes: Iterable[Json]) -> dict[int, list[Json]]:
    sorted_in: dict[int, list[Json]] = defaultdict(list)
    for note in notes:
        sorted_in[note["image_id"]].append(note)
    return sorted_in
