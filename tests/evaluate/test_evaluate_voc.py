"""VOC's average precision against a computation straight from its definition."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tests.evaluate.random_sets import random_set

from detdistill.evaluate import voc

Records = list[dict[str, Any]]


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def curve(objects: Records, found: Records) -> tuple[list[float], list[float]]:
    """Recalls and precisions of a class, a detection at a time."""
    wanted = sum(not o["iscrowd"] for o in objects)
    taken: set[int] = set()
    hits = misses = 0
    recalls, precisions = [], []
    for detection in sorted(found, key=lambda d: -d["score"]):
        rivals = [o for o in objects if o["image_id"] == detection["image_id"]]
        best = max(rivals, key=lambda o: overlap(o["bbox"], detection["bbox"]), default=None)
        if best is None or overlap(best["bbox"], detection["bbox"]) < 0.5:
            misses += 1
        elif best["iscrowd"]:
            pass
        elif best["id"] in taken:
            misses += 1
        else:
            taken.add(best["id"])
            hits += 1
        if hits + misses:
            recalls.append(hits / wanted)
            precisions.append(hits / (hits + misses))
    return recalls, precisions


def expected(truth: dict[str, Any], found: Records) -> tuple[float, float]:
    areas, elevens = [], []
    for category in truth["categories"]:
        objects = [o for o in truth["annotations"] if o["category_id"] == category["id"]]
        if all(o["iscrowd"] for o in objects):
            continue
        mine = [d for d in found if d["category_id"] == category["id"]]
        points = list(zip(*curve(objects, mine), strict=True))
        steps = [0.0, *sorted({recall for recall, _ in points})]
        area = 0.0
        for low, high in pairwise(steps):
            area += (high - low) * max(p for recall, p in points if recall >= high)
        areas.append(area)
        levels = [max([p for r, p in points if r >= t], default=0.0) for t in np.arange(11) / 10]
        elevens.append(sum(levels) / 11)
    return (sum(areas) / len(areas), sum(elevens) / len(elevens)) if areas else (-1.0, -1.0)


@pytest.mark.parametrize("seed", range(12))
def test_both_numbers_are_those_of_the_definition(seed: int) -> None:
    truth, found = random_set(seed)
    found = [{**d, "score": d["score"] - 1e-6 * n} for n, d in enumerate(found)]
    metrics = voc.evaluate(truth, found)
    area, eleven = expected(truth, found)
    assert metrics.AP50_area == pytest.approx(area)
    assert metrics.AP50_11point == pytest.approx(eleven)


def test_a_difficult_object_is_neither_asked_for_nor_held_against_the_detector() -> None:
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
    hard = {**box, "bbox": [50, 50, 9, 9], "iscrowd": 1}
    truth = {"annotations": [{**box, "iscrowd": 0}, hard], "categories": [{"id": 1}, {"id": 2}]}
    found = [{**hard, "score": 0.9}, {**hard, "score": 0.8}, {**box, "score": 0.5}]
    assert voc.evaluate(truth, found) == voc.Metrics(AP50_area=1.0, AP50_11point=1.0)


def test_without_objects_there_is_nothing_to_measure() -> None:
    empty = {"annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    assert voc.evaluate(empty, []) == voc.Metrics(AP50_area=-1.0, AP50_11point=-1.0)
