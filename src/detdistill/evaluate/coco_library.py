"""What computes COCO's numbers: the one file that starts a metrics library.

hotcoco does; pycocotools does where hotcoco is missing, slower and bit for bit the same.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from detdistill.errors import UserError

Library = Literal["hotcoco", "pycocotools"]
Floats = npt.NDArray[np.float64]
Record = Mapping[str, Any]


def run(
    ground_truth: Record,
    detections: Iterable[Record],
    library: Library | None = None,
    ious: Sequence[float] | None = None,
) -> Any:  # noqa: ANN401 - the libraries have no types
    """A library's own evaluation that has looked at every image; it prints and changes nothing.

    Args:
        ground_truth: as `coco.evaluate` takes it; so are the detections.
        detections: COCO results.
        library: who computes; None for the fastest that is installed.
        ious: thresholds; COCO's if None.

    Raises:
        UserError: a detection is incomplete or names an unknown image or category, or there is no
            metrics library.
    """
    truth, found = _truth(ground_truth), [_result(detection) for detection in detections]
    _check(truth, found)
    start = _hotcoco_run if (library or _installed()) == "hotcoco" else _pycocotools_run
    return start(truth, found, ious)


def numbers(done: Any) -> Floats:  # noqa: ANN401
    """(12,) COCO's numbers of an evaluation, in COCO's order."""
    with contextlib.redirect_stdout(io.StringIO()):
        getattr(done, "summary_lines", done.summarize)()  # hotcoco's own `summarize` would print
    return np.asarray(done.stats)


def precisions(done: Any) -> Floats:  # noqa: ANN401
    """(T, R, K, A, M) by IoU, recall, class, area and detections per image; -1 without objects."""
    with contextlib.redirect_stdout(io.StringIO()):
        done.accumulate()
    return np.asarray(done.eval["precision"])


def _installed() -> Library:
    if find_spec("hotcoco"):
        return "hotcoco"
    if find_spec("pycocotools"):
        return "pycocotools"
    raise UserError("COCO metrics need a library: run `pip install hotcoco`.")


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


def _hotcoco_run(
    truth: dict[str, Any], found: list[dict[str, Any]], ious: Sequence[float] | None
) -> Any:  # noqa: ANN401
    import hotcoco

    data = hotcoco.COCO(truth)
    run = hotcoco.COCOeval(data, data.load_res(found), "bbox")
    if ious is not None:
        run.params.iouThrs = list(ious)
    run.evaluate()
    return run


def _pycocotools_run(
    truth: dict[str, Any], found: list[dict[str, Any]], ious: Sequence[float] | None
) -> Any:  # noqa: ANN401
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
