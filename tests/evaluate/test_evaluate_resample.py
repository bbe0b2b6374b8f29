"""AP of resampled images is COCO's AP of the images repeated."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from tests.evaluate.random_sets import random_set

from detdistill.evaluate import coco
from detdistill.evaluate.coco_library import Library
from detdistill.evaluate.resample import draw, resampled_ap

LIBRARIES: tuple[Library, ...] = ("hotcoco", "pycocotools")


def distinct_scores(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A random set in which no two detections of an image have the same score."""
    truth, found = random_set(seed)
    order = np.random.default_rng(seed).permutation(len(found))
    scores = (order + 0.5) / len(found)
    return truth, [{**d, "score": float(s)} for d, s in zip(found, scores, strict=True)]


def repeated(
    truth: dict[str, Any], found: list[dict[str, Any]], counts: list[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every image as often as it was drawn, under an id of its own each time."""
    copies = defaultdict(list)
    for image, count in zip(truth["images"], counts, strict=True):
        copies[image["id"]] = [1000 * image["id"] + number for number in range(count)]
    images = [{**i, "id": new} for i in truth["images"] for new in copies[i["id"]]]
    notes = [{**a, "image_id": n} for a in truth["annotations"] for n in copies[a["image_id"]]]
    results = [{**d, "image_id": n} for d in found for n in copies[d["image_id"]]]
    return {**truth, "images": images, "annotations": notes}, results


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("seed", range(6))
def test_weighing_images_is_repeating_them(seed: int, library: Library) -> None:
    truth, found = distinct_scores(seed)
    weights = draw(len(truth["images"]), 5, seed=seed)
    aps = resampled_ap(coco.match(truth, found, library=library), weights).tolist()
    for counts, ap in zip(weights.int().tolist(), aps, strict=True):
        expected = coco.evaluate(*repeated(truth, found, counts), library=library).AP
        assert ap == pytest.approx(expected, abs=1e-12) or (np.isnan(ap) and expected == -1)


@pytest.mark.parametrize("seed", range(6, 12))
def test_every_image_once_is_the_evaluation_itself(seed: int) -> None:
    truth, found = random_set(seed)
    once = torch.ones(1, len(truth["images"]), dtype=torch.float64)
    ap = resampled_ap(coco.match(truth, found), once)
    assert ap.item() == pytest.approx(coco.evaluate(truth, found).AP, abs=1e-12)


def test_a_resample_has_as_many_images_and_a_seed_repeats_it() -> None:
    weights = draw(50, 200, seed=3)
    assert torch.equal(weights.sum(1), torch.full((200,), 50.0, dtype=torch.float64))
    assert weights.mean(0).sub(1).abs().max() < 0.5
    assert torch.equal(weights, draw(50, 200, seed=3))
    assert not torch.equal(weights, draw(50, 200, seed=4))


def test_portions_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found = distinct_scores(1)
    matches, weights = coco.match(truth, found), draw(len(truth["images"]), 9)
    whole = resampled_ap(matches, weights)
    monkeypatch.setattr("detdistill.evaluate.resample._VALUES_AT_A_TIME", 1)
    assert torch.allclose(whole, resampled_ap(matches, weights), rtol=1e-12, equal_nan=True)


def test_a_detector_that_finds_nothing_has_no_precision() -> None:
    truth, _ = distinct_scores(1)
    aps = resampled_ap(coco.match(truth, []), draw(len(truth["images"]), 4))
    assert set(aps[~aps.isnan()].tolist()) <= {0.0}
