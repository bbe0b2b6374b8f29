"""Scores beside overlaps."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from detdistill.evaluate.alignment import Overlaps, calibration, correlation, overlaps


def note(box: list[float], category: int = 1, image: int = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, **more}


TRUTH = {
    "annotations": [
        note([0, 0, 10, 10]),
        note([20, 0, 10, 10]),
        note([0, 0, 10, 10], category=2),
        note([0, 0, 10, 10], image=2),
        note([50, 50, 40, 40], iscrowd=1),
    ]
}


def found(*rows: tuple[float, dict[str, Any]]) -> Overlaps:
    return overlaps(TRUTH, [{**detection, "score": score} for score, detection in rows])


def test_a_detection_belongs_to_the_object_of_its_class_that_it_overlaps_most() -> None:
    made = found((0.9, note([20, 0, 10, 5])), (0.6, note([0, 0, 10, 8], category=2)))
    assert made.owner.tolist() == [1, 2]
    assert made.iou.tolist() == pytest.approx([0.5, 0.8])
    assert made.score.tolist() == [0.9, 0.6]
    assert made.objects == 4


def test_a_detection_beside_all_objects_of_its_class_belongs_to_none() -> None:
    made = found((0.9, note([70, 0, 5, 5])), (0.8, note([0, 0, 10, 10], category=2, image=2)))
    assert made.owner.tolist() == [-1, -1]
    assert made.iou.tolist() == [0, 0]


def test_what_lies_in_a_crowd_of_its_class_is_left_out() -> None:
    inside, other = note([60, 60, 5, 5]), note([60, 60, 5, 5], category=2)
    assert found((0.9, inside), (0.8, other)).score.tolist() == [0.8]


def test_the_best_of_an_objects_detections_counts() -> None:
    made = found(
        (0.9, note([0, 0, 10, 5])), (0.2, note([0, 0, 10, 10])), (0.5, note([70, 0, 5, 5]))
    )
    assert made.best(made.score).tolist() == [0.9, 0, 0, 0]
    assert made.best(made.iou).tolist() == pytest.approx([1, 0, 0, 0])


def test_calibration_means_over_bins_of_scores() -> None:
    made = found(
        (0.95, note([0, 0, 10, 10])), (0.91, note([0, 0, 10, 5])), (0.1, note([20, 0, 1, 1]))
    )
    bins = calibration(made)
    assert bins.count.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert bins.score[9].item() == pytest.approx(0.93)
    assert bins.iou[9].item() == pytest.approx(0.75)
    assert bins.error == pytest.approx((2 * 0.18 + abs(0.1 - 0.01)) / 3)


def test_nothing_found_is_calibrated() -> None:
    assert calibration(found()).error == 0


def test_correlation_is_pearsons() -> None:
    a, b = torch.rand(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a.numpy(), b.numpy())[0, 1])
    assert math.isnan(correlation(torch.ones(3), torch.rand(3)))
