"""Kinds of errors: against COCO's analysis written upon pycocotools, and against tidecv."""

import contextlib
import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.evaluate.random_sets import Records, random_set
from tests.evaluate.test_evaluate_resample import distinct_scores

from detdistill.evaluate import coco, errors
from detdistill.evaluate.coco_library import Library
from detdistill.evaluate.errors import analyse, shares

LIBRARIES: tuple[Library, ...] = ("hotcoco", "pycocotools")
Floats = NDArray[np.float64]


class Analysis(COCOeval):
    """pycocotools, which honours `ignore` as its Matlab twin does: not only of crowds."""

    def _prepare(self) -> None:
        super()._prepare()
        for gts in self._gts.values():
            for gt in gts:
                gt["ignore"] = gt["ignore"] or gt.get("other", False)


def grouped(seed: int) -> tuple[dict[str, Any], Records]:
    """A random set whose classes are in two supercategories, but for one."""
    truth, found = random_set(seed)
    for number, category in enumerate(truth["categories"][1:]):
        category["supercategory"] = f"group {number % 2}"
    return truth, found


def expected(truth: dict[str, Any], found: Records) -> Floats:
    """(7, R, K, A), class by class, as the Matlab toolkit describes it."""
    plain = [_precision(truth, found, iou) for iou in (0.75, 0.5, 0.1)]
    groups = {c["id"]: c.get("supercategory", c["id"]) for c in truth["categories"]}
    sim, oth = np.full_like(plain[0], -1), np.full_like(plain[0], -1)
    for place, number in enumerate(sorted(groups)):
        near = {other for other, group in groups.items() if group == groups[number]}
        sim[:, place] = _precision(_as_one(truth, number, near), found, 0.1)[:, place]
        oth[:, place] = _precision(_as_one(truth, number, set(groups)), found, 0.1)[:, place]
    background = np.where(oth > 0, 1, oth)
    missed = np.where(oth > -1, 1, oth)
    return np.stack([*plain, sim, oth, background, missed])


def _as_one(truth: dict[str, Any], number: int, others: set[int]) -> dict[str, Any]:
    """All objects of these classes under one number, those of other classes to be ignored."""
    notes = [
        {**note, "category_id": number, "other": note["category_id"] != number}
        for note in truth["annotations"]
        if note["category_id"] in others
    ]
    return {**truth, "annotations": notes}


def _precision(truth: dict[str, Any], found: Records, iou: float) -> Floats:
    with contextlib.redirect_stdout(io.StringIO()):
        data, results = COCO(), COCO()
        data.dataset, results.dataset = truth, {**truth, "annotations": _results(found)}
        data.createIndex()
        results.createIndex()
        run = Analysis(data, results, "bbox")
        run.params.iouThrs, run.params.maxDets = np.array([iou]), [100]
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][0, ..., 0]


def _results(found: Records) -> Records:
    return [
        {**d, "id": i, "area": d["bbox"][2] * d["bbox"][3], "iscrowd": 0}
        for i, d in enumerate(found, start=1)
    ]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("seed", range(8))
def test_the_analysis_is_the_coco_toolkits(seed: int, library: Library) -> None:
    truth, found = grouped(seed)
    wanted = expected(truth, found)
    made = analyse(truth, found, library=library).precision
    np.testing.assert_allclose(np.where(np.isnan(made), -1, made), wanted, atol=1e-12)


def test_shares_of_a_class_sum_up_to_one() -> None:
    truth, found = grouped(3)
    made = shares(analyse(truth, found).areas())
    known = ~np.isnan(made[0])
    np.testing.assert_allclose(made.sum(axis=0)[known], 1)
    assert known.any()
    assert not known.all()


def one(box: list[float], category: int, **more: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "bbox": box, **more}


def sides(*boxes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"score": 0.9 - i / 10, **box} for i, box in enumerate(boxes)]


TRUTH = {
    "images": [{"id": 1, "width": 100, "height": 100}],
    "categories": [
        {"id": 1, "name": "cat", "supercategory": "animal"},
        {"id": 2, "name": "dog", "supercategory": "animal"},
        {"id": 3, "name": "cup", "supercategory": "thing"},
    ],
    "annotations": [one([0, 0, 20, 20], 1), one([40, 40, 20, 20], 2), one([70, 0, 20, 20], 3)],
}


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        (one([40, 40, 20, 20], 1), "Sim"),
        (one([70, 0, 20, 20], 1), "Oth"),
        (one([0, 70, 20, 20], 1), "BG"),
    ],
)
def test_a_mistake_is_forgiven_with_its_kind_and_not_before(
    mistake: dict[str, Any], kind: str
) -> None:
    found = sides(mistake, one([0, 0, 20, 20], 1))
    areas = dict(zip(errors.KINDS, analyse(TRUTH, found).areas()[:, 0], strict=True))
    place = list(errors.KINDS).index(kind)
    assert list(areas.values()) == pytest.approx([0.5] * place + [1.0] * (7 - place))


def test_a_box_that_is_off_is_forgiven_at_its_overlap() -> None:
    found = sides(one([0, 0, 20, 12], 1))  # IoU 0.6
    assert analyse(TRUTH, found).areas()[:, 0] == pytest.approx([0.0] + [1.0] * 6)


def test_without_supercategories_no_class_is_similar() -> None:
    bare = [{"id": c["id"], "name": c["name"]} for c in TRUTH["categories"]]
    truth = {**TRUTH, "categories": bare}
    found = sides(one([40, 40, 20, 20], 1), one([0, 0, 20, 20], 1))
    areas = analyse(truth, found).areas()[:, 0]
    assert areas[3] == areas[2] < areas[4]
    assert errors.has_supercategories(TRUTH)
    assert not errors.has_supercategories(truth)


def comparable(seed: int) -> tuple[dict[str, Any], Records]:
    """A random set without what tidecv treats otherwise on purpose.

    No crowds, no classes without objects, no boxes without extent, at most 100 detections per
    image, no equal scores.
    """
    truth, found = distinct_scores(seed)
    real = [a for a in truth["annotations"] if not a["iscrowd"] and min(a["bbox"][2:]) > 0]
    known = {a["category_id"] for a in real}
    per_image: Counter[int] = Counter()
    kept = []
    for d in sorted(found, key=lambda d: -d["score"]):
        per_image[d["image_id"]] += 1
        fits = d["category_id"] in known and min(d["bbox"][2:]) > 0
        kept += [d] if fits and per_image[d["image_id"]] <= 100 else []
    categories = [c for c in truth["categories"] if c["id"] in known]
    return {**truth, "annotations": real, "categories": categories}, kept


def by_tidecv(
    truth: dict[str, Any], found: Records
) -> tuple[float, dict[str, float], dict[str, int]]:
    """AP50 and gains as fractions, and counts."""
    quantify = pytest.importorskip("tidecv.quantify")
    from tidecv import TIDE, Data

    objects, results = Data("truth"), Data("found")
    for image in truth["images"]:
        objects.add_image(image["id"], str(image["id"]))
    for note in truth["annotations"]:
        objects.add_ground_truth(note["image_id"], note["category_id"], note["bbox"])
    for d in found:
        results.add_detection(d["image_id"], d["category_id"], d["score"], d["bbox"])
    run = quantify.TIDERun(objects, results, 0.5, 0.1, TIDE.BOX, 100)
    gains = {kind.short_name: gain for kind, gain in run.fix_main_errors().items()}
    special = {kind.short_name: gain for kind, gain in run.fix_special_errors().items()}
    gains |= {"FP": special["FalsePos"], "FN": special["FalseNeg"]}
    counts = {kind.short_name: count for kind, count in run.count_errors().items()}
    return run.ap / 100, {kind: gain / 100 for kind, gain in gains.items()}, counts


@pytest.mark.parametrize("seed", range(12))
def test_tide_is_tidecvs_up_to_how_recall_is_sampled(seed: int) -> None:
    truth, found = comparable(seed)
    if not found:
        pytest.skip("nothing was found in this set")
    ap, gains, counts = by_tidecv(truth, found)
    made = coco.tide(truth, found)
    assert made.counts == counts
    step = 1 / 101  # a recall of 0.29 may be found at 0.28999 or at 0.29001
    assert made.ap50 == pytest.approx(ap, abs=step)
    assert made.gains == pytest.approx(gains, abs=2 * step)


def test_tide_leaves_out_classes_without_objects() -> None:
    truth = {**TRUTH, "annotations": TRUTH["annotations"][:1]}
    found = sides(one([0, 0, 20, 20], 1), one([0, 70, 20, 20], 3))
    assert coco.tide(truth, found).ap50 == pytest.approx(1)
    assert by_tidecv(truth, found)[0] == pytest.approx(0.5)
