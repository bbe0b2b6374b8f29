"""COCO's twelve numbers for a set of detections: the one file that knows the metrics library.

hotcoco computes them; pycocotools does where hotcoco is missing, slower and bit for bit the same.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detdistill.errors import UserError

Library = Literal["hotcoco", "pycocotools"]
Floats = npt.NDArray[np.float64]
Record = Mapping[str, Any]

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
    truth, found = _checked(ground_truth, detections)
    library = library or _installed()
    run = _RUNS[library](truth, found)
    by_class = _per_class(truth["categories"], _accumulated(run))
    numbers = map(float, _NUMBERS[library](run))
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
    run = _RUNS[library or _installed()](*_checked(ground_truth, detections), ious)
    return _accumulated(run)[..., _MOST_DETECTIONS]


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
    found = _hotcoco_run(*_checked(ground_truth, detections)).tide_errors()
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
    truth, found = _checked(ground_truth, detections)
    run = _RUNS[library or _installed()](truth, found).evalImgs
    places = {image["id"]: place for place, image in enumerate(truth["images"])}
    pictures: dict[int, list[Record]] = {category["id"]: [] for category in truth["categories"]}
    for picture in run:
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


def _checked(
    ground_truth: Record, detections: Iterable[Record]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Copies that the libraries may write to.

    Raises:
        UserError: the detections are not of these images.
    """
    truth = _truth(ground_truth)
    found = [_result(detection) for detection in detections]
    _check(truth, found)
    return truth, found


def _truth(ground_truth: Record) -> dict[str, list[dict[str, Any]]]:
    """A copy that the libraries may write to, with what both of them need and no more."""
    annotations = enumerate(ground_truth["annotations"], start=1)
    return {
        "images": [dict(image) for image in ground_truth["images"]],
        "annotations": [_annotation(number, annotation) for number, annotation in annotations],
        "categories": [dict(category) for category in ground_truth["categories"]],
    }


def _annotation(number: int, annotation: Record) -> dict[str, Any]:
    box = annotation["bbox"]
    return {
        "id": number,
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "bbox": list(box),
        "area": annotation.get("area", box[2] * box[3]),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }


def _result(detection: Record) -> dict[str, Any]:
    try:
        return {
            "image_id": detection["image_id"],
            "category_id": detection["category_id"],
            "bbox": list(detection["bbox"]),
            "score": detection["score"],
        }
    except KeyError as error:
        raise UserError(f"A detection lacks {error}: {dict(detection)}.") from error


def _check(truth: Record, found: Sequence[Record]) -> None:
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for number, detection in enumerate(found):
        if detection["image_id"] not in images:
            raise _mismatch(number, "image", detection["image_id"])
        if detection["category_id"] not in categories:
            raise _mismatch(number, "category", detection["category_id"])
        if not all(map(math.isfinite, (detection["score"], *detection["bbox"]))):
            raise UserError(f"Detection {number} has a box or score that is no number: {detection}")


def _mismatch(number: int, kind: str, name: object) -> UserError:
    return UserError(
        f"Detection {number} is of {kind} {name!r}, which the data set does not have: "
        f"are the detections of another data set or split?"
    )


def _installed() -> Library:
    if find_spec("hotcoco"):
        return "hotcoco"
    if find_spec("pycocotools"):
        return "pycocotools"
    raise UserError("COCO metrics need a library: run `pip install hotcoco`.")


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


def _hotcoco_numbers(run: Any) -> Floats:  # noqa: ANN401 - the libraries have no types
    run.summary_lines()
    return np.asarray(run.stats)


def _pycocotools_numbers(run: Any) -> Floats:  # noqa: ANN401
    with contextlib.redirect_stdout(io.StringIO()):
        run.summarize()
    return np.asarray(run.stats)


def _accumulated(run: Any) -> Floats:  # noqa: ANN401
    """Precision by IoU, recall, class, area and detections per image."""
    with contextlib.redirect_stdout(io.StringIO()):
        run.accumulate()
    return np.asarray(run.eval["precision"])


def _hotcoco_run(
    truth: dict[str, Any], found: list[dict[str, Any]], ious: Sequence[float] | None = None
) -> Any:  # noqa: ANN401
    """An evaluation that has looked at every image, at COCO's thresholds or others."""
    import hotcoco

    data = hotcoco.COCO(truth)
    run = hotcoco.COCOeval(data, data.load_res(found), "bbox")
    if ious is not None:
        run.params.iouThrs = list(ious)
    run.evaluate()
    return run


def _pycocotools_run(
    truth: dict[str, Any], found: list[dict[str, Any]], ious: Sequence[float] | None = None
) -> Any:  # noqa: ANN401
    """As `_hotcoco_run`."""
    with contextlib.redirect_stdout(io.StringIO()):
        from pycocotools.cocoeval import COCOeval

        data, results = _indexed(truth), _indexed({**truth, "annotations": _as_objects(found)})
        run = COCOeval(data, results, "bbox")
        if ious is not None:
            run.params.iouThrs = np.asarray(ious)
        run.evaluate()
    return run


def _indexed(content: dict[str, Any]) -> Any:  # noqa: ANN401 - the library has no types
    from pycocotools.coco import COCO

    data = COCO()
    data.dataset = content
    data.createIndex()
    return data


def _as_objects(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What pycocotools' `loadRes` makes of results; it refuses an empty list."""
    return [
        {**result, "id": number, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
        for number, result in enumerate(found, start=1)
    ]


_RUNS: Mapping[Library, Callable[..., Any]] = {
    "hotcoco": _hotcoco_run,
    "pycocotools": _pycocotools_run,
}
_NUMBERS: Mapping[Library, Callable[[Any], Floats]] = {
    "hotcoco": _hotcoco_numbers,
    "pycocotools": _pycocotools_numbers,
}
