"""COCO's twelve numbers for a set of detections, and which of them were right or wrong in what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from detdistill.errors import UserError
from detdistill.evaluate import coco_library
from detdistill.evaluate.coco_library import Floats, Library, Record

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers in COCO's order."""

_ALL_AREAS, _MOST_DETECTIONS = 0, -1
_ANY_AREA = (0.0, 1e10)
_THRESHOLDS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """The twelve numbers of a COCO evaluation, as fractions.

    A number is -1, as in COCO, where there is nothing to measure: `APs` of a data set without
    small objects, say. Leave such numbers out of any mean.
    """

    AP: float
    """Mean over classes and over the IoU thresholds 0.50, 0.55, ..., 0.95."""
    AP50: float
    AP75: float
    APs: float
    """Of objects smaller than 32 x 32 pixels."""
    APm: float
    APl: float
    """Of objects larger than 96 x 96 pixels."""
    AR1: float
    """Share of objects found when one detection per image and class counts."""
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    per_class: Mapping[str, float] = field(default_factory=dict)
    """AP of every class by name, in the order of the data set's categories."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the twelve numbers in COCO's order, then `per_class`."""
        numbers = {name: getattr(self, name) for name in NAMES}
        return {**numbers, "per_class": dict(self.per_class)}

    @classmethod
    def from_dict(cls, content: Record) -> Self:
        """What `to_dict` wrote; other keys are passed over.

        Raises:
            UserError: a number is missing.
        """
        missing = [name for name in NAMES if name not in content]
        if missing:
            raise UserError(f"These are not COCO metrics: {', '.join(missing)} missing.")
        numbers = {name: float(content[name]) for name in NAMES}
        return cls(**numbers, per_class=dict(content.get("per_class", {})))


def evaluate(
    ground_truth: Record, detections: Iterable[Record], *, library: Library | None = None
) -> Metrics:
    """Compares detections with the truth. Prints nothing and changes neither.

    Objects are renumbered from 1: pycocotools takes an object with the id 0 for one that was never
    found, and mixes up objects that share an id.

    Args:
        ground_truth: COCO's `images`, `annotations` and `categories`. An object without `area` has
            its box's, one without `iscrowd` is no crowd.
        detections: COCO results: `image_id`, `category_id`, `bbox` as x, y, width, height, `score`.
            Equal scores rank in this order.
        library: who computes; None for the fastest that is installed.

    Raises:
        UserError: a detection is incomplete or names an unknown image or category, or there is no
            metrics library.
    """
    done = coco_library.run(ground_truth, detections, library)
    by_class = _per_class(ground_truth["categories"], coco_library.precisions(done))
    numbers = map(float, coco_library.numbers(done))
    return Metrics(**dict(zip(NAMES, numbers, strict=True)), per_class=by_class)


def precision(
    ground_truth: Record,
    detections: Iterable[Record],
    ious: Sequence[float],
    *,
    library: Library | None = None,
) -> Floats:
    """Precision at other IoU thresholds than COCO's; the other arguments are those of `evaluate`.

    Returns:
        (T, R, K, A) by threshold, recall from 0 to 1 in R = 101 steps, class in the order of the
        ids, area (all, small, medium, large); -1 where there are no objects.

    Raises:
        UserError: as `evaluate`.
    """
    done = coco_library.run(ground_truth, detections, library, ious)
    return coco_library.precisions(done)[..., _MOST_DETECTIONS]


def _per_class(categories: Sequence[Record], precision: Floats) -> dict[str, float]:
    """Mean precision of each class; the array's classes are in the order of their ids.

    Categories that share a name are told apart by their ids.
    """
    ids = sorted(category["id"] for category in categories)
    uses = Counter(category["name"] for category in categories)
    per_class = {}
    for category in categories:
        shared = uses[category["name"]] > 1
        name = f"{category['name']} ({category['id']})" if shared else category["name"]
        values = precision[:, :, ids.index(category["id"]), _ALL_AREAS, _MOST_DETECTIONS]
        per_class[name] = _mean(values)
    return per_class


def _mean(precision: Floats) -> float:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else -1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tide:
    """What TIDE finds at an IoU of 0.5: by how much AP50 would rise without each kind of error.

    The six main kinds are `Cls`, `Loc`, `Both` (class and place), `Dupe`, `Bkg`, `Miss`; then there
    are all false positives, `FP`, and all objects that were not found, `FN`.
    """

    ap50: float
    gains: Mapping[str, float]
    """AP50 to be gained, as fractions, by kind of error; they need not add up."""
    counts: Mapping[str, int]
    """How often each main kind occurs, among the first 100 detections per image and class."""


TIDE_KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN")


def tide(ground_truth: Record, detections: Iterable[Record]) -> Tide:
    """TIDE's errors; the arguments are those of `evaluate`.

    As the authors' tidecv, but for three things: classes without objects do not count (tidecv
    counts them as AP 0), 100 detections per class and image are kept (tidecv: 100 per image), and
    recall is sampled as COCO does it.

    Raises:
        UserError: as `evaluate`, or hotcoco is missing.
    """
    if not find_spec("hotcoco"):
        raise UserError("TIDE's errors need a library: run `pip install hotcoco`.")
    found = coco_library.run(ground_truth, detections, "hotcoco").tide_errors()
    return Tide(
        ap50=found["ap_base"],
        gains={kind: found["delta_ap"][kind] for kind in TIDE_KINDS},
        counts={kind: found["counts"][kind] for kind in TIDE_KINDS if kind in found["counts"]},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassMatches:
    """What became of the detections of one class, best first, at every IoU threshold."""

    images: Tensor
    """(D,) places of their images in the ground truth."""
    correct: Tensor
    """(T, D) whether they found an object."""
    ignored: Tensor
    """(T, D) whether they count neither as right nor as wrong, such as those in crowds."""
    objects: Tensor
    """(I,) how many objects of the class each image has."""


def match(
    ground_truth: Record, detections: Iterable[Record], *, library: Library | None = None
) -> list[ClassMatches]:
    """Which detections are right, by class; the arguments are those of `evaluate`.

    Raises:
        UserError: as `evaluate`.
    """
    places = {image["id"]: place for place, image in enumerate(ground_truth["images"])}
    pictures: dict[int, list[Record]] = {kind["id"]: [] for kind in ground_truth["categories"]}
    for picture in coco_library.run(ground_truth, detections, library).evalImgs:
        if picture and tuple(picture["aRng"]) == _ANY_AREA:
            pictures[picture["category_id"]].append(picture)
    return [_class_matches(of_class, places) for of_class in pictures.values()]


def _class_matches(pictures: Sequence[Record], places: Mapping[int, int]) -> ClassMatches:
    """Puts the judgements on single images together; equal scores keep the order of images."""
    pictures = sorted(pictures, key=lambda picture: picture["image_id"])
    counts = [len(picture["dtScores"]) for picture in pictures]
    where = torch.tensor([places[picture["image_id"]] for picture in pictures], dtype=torch.long)
    kept = [np.logical_not(np.asarray(p["gtIgnore"], dtype=bool)).sum() for p in pictures]
    objects = torch.zeros(len(places), dtype=torch.long)
    objects[where] = torch.tensor(kept, dtype=torch.long)
    scores = np.concatenate([np.asarray(p["dtScores"]) for p in pictures] or [np.zeros(0)])
    order = torch.from_numpy(np.argsort(-scores, kind="mergesort"))
    matched, ignored = (_side_by_side(pictures, name) for name in ("dtMatches", "dtIgnore"))
    return ClassMatches(
        images=where.repeat_interleave(torch.tensor(counts, dtype=torch.long))[order],
        correct=(matched & ~ignored)[:, order],
        ignored=ignored[:, order],
        objects=objects,
    )


def _side_by_side(pictures: Sequence[Record], name: str) -> Tensor:
    """(T, D) of all images, one after the other."""
    none = [np.zeros((_THRESHOLDS, 0), dtype=bool)]
    parts = (np.asarray(picture[name]).reshape(_THRESHOLDS, -1) > 0 for picture in pictures)
    return torch.from_numpy(np.concatenate([*none, *parts], axis=1))
