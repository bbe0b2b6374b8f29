"""A folder in VOC's layout and the same in COCO's give the same numbers, all the way through."""

import json
import re
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluate.test_evaluate_voc import expected
from tests.interop.test_onnx import talkative

from detdistill import data
from detdistill.cli import main
from detdistill.data import shapes
from detdistill.evaluate import coco, predict, voc
from detdistill.interop import checkpoint

CLASSES = shapes.Shapes.classes
COUNT = 6
OBJECT = re.compile(
    "<object><name>(.*?)</name><difficult>(.)</difficult><bndbox>(.*?)</bndbox></object>"
)
Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector, and pictures whose objects are some of what it finds, some of them difficult."""
    place = tmp_path_factory.mktemp("voc")
    detector = talkative("fcos")
    checkpoint.save(detector, place / "detector.safetensors")
    shapes.write(place / "voc", "tiny", layout="voc", train=1, tune=1, test=COUNT)
    found = predict(detector, data.open(f"voc:{place / 'voc'}", "test"))
    for number, stem in enumerate(stems(place / "voc"), start=1):
        mine = [one for one in found if one["image_id"] == number and min(one["bbox"][2:]) > 6]
        annotate(place / "voc/VOC2007/Annotations" / f"{stem}.xml", mine[:8])
    assert main(["data", "convert", f"voc:{place}/voc", "--to", "coco", "--out", f"{place}/c"]) == 0
    return place


def annotate(file: Path, objects: Records) -> None:
    """Replaces the objects of an annotation file; pixels are counted from 1."""
    head = re.split("<object>|</annotation>", file.read_text())[0]
    file.write_text(head + "".join(map(as_xml, objects, count())) + "</annotation>")


def as_xml(one: dict[str, Any], place: int) -> str:
    left, top, width, height = map(round, one["bbox"])
    corners = (left + 1, top + 1, left + width, top + height)
    names = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{name}>{side}</{name}>" for name, side in zip(names, corners, strict=True))
    return (
        f"<object><name>{CLASSES[one['category_id'] - 1]}</name>"
        f"<difficult>{int(place % 3 == 2)}</difficult><bndbox>{box}</bndbox></object>"
    )


def stems(folder: Path) -> list[str]:
    return (folder / "VOC2007/ImageSets/Main/test.txt").read_text().split()


def written_truth(folder: Path) -> dict[str, Any]:
    """Straight from the files, by another way than the package's."""
    annotations: Records = []
    for image, stem in enumerate(stems(folder), start=1):
        text = (folder / "VOC2007/Annotations" / f"{stem}.xml").read_text()
        for name, difficult, box in OBJECT.findall(text):
            left, top, right, bottom = map(float, re.findall(r"[\d.]+", box))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": CLASSES.index(name) + 1,
                    "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1],
                    "iscrowd": int(difficult),
                }
            )
    return {"annotations": annotations, "categories": [{"id": n + 1} for n in range(len(CLASSES))]}


def random_detections(truth: dict[str, Any], seed: int) -> Records:
    """Near the objects, some of another class, some twice, none of equal score."""
    rng = np.random.default_rng(seed)
    found = []
    for entry in [*truth["annotations"], *truth["annotations"]]:
        width, height = entry["bbox"][2:]
        shift = rng.normal(0, 0.15, 4) * [width, height, width, height]
        box = np.maximum(np.add(entry["bbox"], shift), [0, 0, 1, 1])
        other = int(rng.integers(1, 13)) if rng.random() < 0.2 else entry["category_id"]
        found.append(
            {
                "image_id": entry["image_id"],
                "category_id": other,
                "bbox": box.tolist(),
                "score": float(rng.random()),
            }
        )
    return found


@pytest.mark.parametrize("seed", range(3))
def test_random_detections_are_judged_alike_in_both_layouts(place: Path, seed: int) -> None:
    direct = data.open(f"voc:{place / 'voc'}", "test").ground_truth()
    converted = data.open(f"coco:{place / 'c'}", "test").ground_truth()
    found = random_detections(direct, seed)
    assert coco.evaluate(direct, found) == coco.evaluate(converted, found)
    metrics = voc.evaluate(direct, found)
    assert metrics == voc.evaluate(converted, found)
    area, eleven = expected(written_truth(place / "voc"), found)
    assert metrics.AP50_area == pytest.approx(area)
    assert metrics.AP50_11point == pytest.approx(eleven)
    assert 0.05 < area < 0.95


def test_the_command_line_gives_one_detector_the_same_numbers_in_both_layouts(
    place: Path, tmp_path: Path
) -> None:
    metrics = {}
    for kind, folder in (("voc", "voc"), ("coco", "c")):
        file = tmp_path / f"{kind}.json"
        words = ["evaluate", f"{place}/detector.safetensors", "--data", f"{kind}:{place / folder}"]
        assert main([*words, "--out", str(file)]) == 0
        metrics[kind] = json.loads(file.read_text())["metrics"]
    own = {name: metrics["voc"].pop(name) for name in ("AP50_area", "AP50_11point")}
    assert metrics["voc"] == metrics["coco"]
    assert metrics["coco"]["AP50"] > 0.05
    dataset = data.open(f"voc:{place / 'voc'}", "test")
    found = predict(talkative("fcos"), dataset)
    area, eleven = expected(written_truth(place / "voc"), found)
    assert own == {"AP50_area": pytest.approx(area), "AP50_11point": pytest.approx(eleven)}
