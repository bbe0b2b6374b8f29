"""What the choice of test images does to AP: runs evaluated on images drawn with repetition.

All runs of a comparison are counted on the same resamples, so their differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from detdistill import data
from detdistill.errors import UserError
from detdistill.evaluate import coco
from detdistill.evaluate.resample import draw, resampled_ap
from detdistill.report.runs import Json, Run

RESAMPLES = 1000


def resampled(runs: Sequence[Run], number: int) -> Mapping[Path, Tensor]:
    """AP of each run on `number` resamples of the common test images, (number,), by its folder.

    Empty where the images differ or are not there; a run without detections is left out.
    """
    found = {run.folder: run.detections() for run in runs}
    truth = _common_truth(runs)
    if truth is None or not any(found.values()) or not number:
        return {}
    weights = draw(len(truth["images"]), number)
    return {
        folder: resampled_ap(coco.match(truth, detections), weights)
        for folder, detections in found.items()
        if detections
    }


def _common_truth(runs: Sequence[Run]) -> Json | None:
    """What all runs were tested on; None if that is not one thing, or not to be had."""
    tests = {run.test for run in runs}
    if len(tests) != 1:
        return None
    name, split, images = tests.pop()
    try:
        return data.tested(name, split, images).ground_truth()
    except UserError:
        return None
