from __future__ import annotations

import contextlib
import copy
import io
import json
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.evaluate.random_sets import random_set

from detdistill.errors import UserError
from detdistill.evaluate import coco_library
from detdistill.evaluate.coco import NAMES, Metrics, evaluate
from detdistill.evaluate.coco_library import Library

TRUTH = {
    "images": [{"id": 1, "width": 100, "height": 100}, {"id": 2, "width": 100, "height": 100}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 50, 50], "area": 2500},
        {"id": 2, "image_id": 2, "category_id": 5, "bbox": [0, 0, 40, 40], "area": 1600},
    ],
    "categories": [{"id": 9, "name": "cat"}, {"id": 5, "name": "dog"}],
}
FOUND = [{"image_id": 1, "category_id": 5, "bbox": [0, 0, 50, 50], "score": 0.9}]


def by_the_reference(
    truth: dict[str, Any], found: list[dict[str, Any]]
) -> tuple[list[float], dict[str, float]]:
    """What pycocotools says when it is used as its own documentation shows."""
    truth, found = copy.deepcopy(truth), copy.deepcopy(found)
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {**truth, "info": {}}
        data.createIndex()
        run = COCOeval(data, data.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    by_class = {}
    for category in truth["categories"]:
        precision = run.eval["precision"][:, :, run.params.catIds.index(category["id"]), 0, 2]
        defined = precision[precision > -1]
        by_class[category["name"]] = float(defined.mean()) if len(defined) else -1.0
    return run.stats.tolist(), by_class


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("seed", range(60))
def test_every_number_equals_the_reference_to_the_last_bit(seed: int, library: Library) -> None:
    truth, found = random_set(seed)
    numbers, by_class = by_the_reference(truth, found)

    metrics = evaluate(truth, found, library=library)

    assert [getattr(metrics, name) for name in NAMES] == numbers
    assert metrics.per_class == by_class


def test_the_random_sets_hold_every_case_they_promise() -> None:
    sets = [random_set(seed) for seed in range(60)]
    assert any(len({detection["score"] for detection in found}) < len(found) for _, found in sets)
    for truth, _ in sets:
        with_objects = {a["image_id"] for a in truth["annotations"]}
        assert with_objects < {image["id"] for image in truth["images"]}
    assert any(a["iscrowd"] for truth, _ in sets for a in truth["annotations"])
    assert any(len(found) > 130 for _, found in sets)
    assert any(0 in detection["bbox"][2:] for _, found in sets for detection in found)
    assert any(
        {a["image_id"] for a in truth["annotations"]} - {d["image_id"] for d in found}
        for truth, found in sets
    )


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
def test_numbers_are_fractions_and_minus_one_where_there_is_nothing_to_measure(
    library: Library,
) -> None:
    metrics = evaluate(TRUTH, FOUND, library=library)

    assert metrics.to_dict()["AP"] == pytest.approx(
        51 / 101
    )  # precision 1 at recalls 0, 0.01, ..., 0.5
    assert metrics.AR100 == 0.5
    assert metrics.APs == -1
    assert metrics.per_class == {"cat": -1.0, "dog": pytest.approx(51 / 101)}


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
def test_no_detections_are_worth_nothing(library: Library) -> None:
    metrics = evaluate(TRUTH, [], library=library)

    assert metrics.AP == metrics.AR100 == 0


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
def test_without_objects_nothing_can_be_measured(library: Library) -> None:
    metrics = evaluate({**TRUTH, "annotations": []}, FOUND, library=library)

    assert {getattr(metrics, name) for name in NAMES} == {-1.0}


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("seed", range(8))
def test_the_ids_of_objects_do_not_matter(seed: int, library: Library) -> None:
    truth, found = random_set(seed)
    expected = evaluate(truth, found)
    for new in (lambda old: old - 1, lambda _: 1):
        renamed = [{**a, "id": new(a["id"])} for a in truth["annotations"]]
        assert evaluate({**truth, "annotations": renamed}, found, library=library) == expected


def test_nothing_is_printed_and_nothing_given_is_changed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    truth, found = random_set(3)
    before = copy.deepcopy((truth, found))

    for library in ("hotcoco", "pycocotools"):
        evaluate(truth, found, library=library)

    assert capfd.readouterr() == ("", "")
    assert (truth, found) == before


def test_metrics_survive_json() -> None:
    metrics = evaluate(*random_set(1))

    content = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))

    assert list(content) == [*NAMES, "per_class"]
    assert Metrics.from_dict(content) == metrics


def test_content_that_lacks_a_number_is_refused() -> None:
    with pytest.raises(UserError, match="AP75 missing"):
        Metrics.from_dict({name: 0.5 for name in NAMES if name != "AP75"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 3}, "Detection 0 is of image 3.*another data set"),
        ({"category_id": 1}, "Detection 0 is of category 1"),
        ({"score": float("nan")}, "Detection 0 .*no number"),
        ({"bbox": [0, 0, float("inf"), 1]}, "Detection 0 .*no number"),
    ],
)
def test_a_detection_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(TRUTH, [{**FOUND[0], **change}])


def test_a_detection_without_a_score_is_refused() -> None:
    with pytest.raises(UserError, match="lacks 'score'"):
        evaluate(TRUTH, [{k: v for k, v in FOUND[0].items() if k != "score"}])


def test_pycocotools_steps_in_where_hotcoco_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_library, "find_spec", lambda name: name == "pycocotools" or None)
    assert coco_library._installed() == "pycocotools"


def test_without_any_library_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coco_library, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install hotcoco"):
        evaluate(TRUTH, FOUND)


def test_numbers_from_arrays_are_taken_as_they_are() -> None:
    found = [{**FOUND[0], "bbox": np.array([0.0, 0, 50, 50]), "score": np.float64(0.9)}]

    assert evaluate(TRUTH, found) == evaluate(TRUTH, FOUND)


def test_categories_that_share_a_name_are_told_apart() -> None:
    twins = [{"id": 9, "name": "dog"}, {"id": 5, "name": "dog"}, {"id": 7, "name": "cat"}]
    per_class = evaluate({**TRUTH, "categories": twins}, FOUND).per_class
    assert set(per_class) == {"dog (9)", "dog (5)", "cat"}
    assert per_class["dog (5)"] > 0
