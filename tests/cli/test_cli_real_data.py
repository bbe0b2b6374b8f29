"""From a folder of COCO's shape, with its gaps, crowds, empty pictures and mess, to an ONNX file.

Each step is one command, and its numbers are compared with those that other code gets.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detdistill.cli import main
from detdistill.interop import checkpoint

GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
IDS = [number for number in range(1, 91) if number not in GAPS]
"""COCO's 80 category ids."""
SHOWN = {1: "crimson", 13: "gold", 44: "teal", 90: "navy"}
"""The categories of which there are objects, and their colours."""
PICTURES = {"train": 24, "val": 12}
DEFECTS = {
    "zero area": {"bbox": [5.0, 5.0, 0.0, 9.0]},
    "outside": {"bbox": [500.0, 5.0, 9.0, 9.0]},
    "unknown category": {"category_id": 12},
}
TRAINING = [
    *("--batch_size", "8", "--log_every", "20", "--skippable", "0.2"),
    *("--optimizer.warmup_steps", "5"),
]


@dataclass
class Written:
    """The folder, and what is right in its part for evaluation."""

    folder: Path
    truth: dict[str, Any] = field(default_factory=dict)


def write(folder: Path) -> Written:
    """Two parts; each has a cut-off picture and annotations that cannot be true."""
    written = Written(folder)
    for part, count in PICTURES.items():
        truth = _part(folder / f"{part}2017", part, count)
        annotations = [*truth["annotations"], *_untrue(truth)]
        broken = {"id": 999, "file_name": "cut.jpg", "width": 64, "height": 64}
        whole = (folder / f"{part}2017" / truth["images"][0]["file_name"]).read_bytes()
        (folder / f"{part}2017" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
        images = [*truth["images"], broken]
        file = folder / "annotations" / f"instances_{part}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({**truth, "images": images, "annotations": annotations}))
        written.truth = truth
    return written


def _part(folder: Path, part: str, count: int) -> dict[str, Any]:
    """Pictures of a rectangle or two, as COCO describes them; every fourth has none."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(part))
    images, annotations = [], []
    for number in range(count):
        height, width = int(rng.integers(50, 65)), int(rng.integers(70, 97))
        pixels = rng.integers(90, 160, (height, width, 3)).astype(np.uint8)
        picture = Image.fromarray(pixels)
        image = {"id": 1000 * number + 7, "width": width, "height": height}
        image["file_name"] = f"{image['id']:012}.jpg"
        for entry in () if number % 4 == 3 else _objects(rng, image, picture):
            annotations.append({**entry, "id": len(annotations) + 1, "image_id": image["id"]})
        picture.save(folder / image["file_name"], quality=95)
        images.append(image)
    categories = [{"id": n, "name": f"thing {n}", "supercategory": "thing"} for n in IDS]
    return {"images": images, "annotations": annotations, "categories": categories}


def _objects(
    rng: np.random.Generator, image: Mapping[str, int], picture: Image.Image
) -> Iterator[dict[str, Any]]:
    """A large rectangle, and in some pictures a region with a crowd."""
    wide, high = int(rng.integers(28, 46)), int(rng.integers(28, 46))
    left, top = (int(rng.integers(0, image[s] - n)) for s, n in (("width", wide), ("height", high)))
    category = int(rng.choice(list(SHOWN)))
    picture.paste(SHOWN[category], (left, top, left + wide, top + high))
    corners = [left, top, left + wide, top, left + wide, top + high, left, top + high]
    yield {
        "category_id": category,
        "bbox": [left, top, wide, high],
        "area": wide * high,
        "segmentation": [corners],
        "iscrowd": 0,
    }
    if image["id"] % 5 == 2:
        yield {
            "category_id": category,
            "bbox": [0, 0, 20, 20],
            "area": 400,
            "segmentation": {"size": [image["height"], image["width"]], "counts": [0, 400]},
            "iscrowd": 1,
        }


def _untrue(truth: dict[str, Any]) -> list[dict[str, Any]]:
    sound = truth["annotations"][0]
    return [{**sound, "id": 500 + i, **wrong} for i, wrong in enumerate(DEFECTS.values())]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(tmp_path_factory.mktemp("real") / "coco")


@pytest.fixture(scope="module")
def student(written: Written) -> Path:
    """A run folder: distilled on the data from a teacher with the same 80 classes."""
    runs = written.folder.parent
    words = ["--data", f"coco:{written.folder}", *TRAINING]
    teacher = ["--student", "gfl-quick-w16", "--steps", "3", "--out", str(runs / "teacher")]
    run("train", *words, *teacher)
    run(
        *("distill", *words, "--student", "gfl-quick-w8", "--steps", "60"),
        *("--teacher", str(runs / "teacher"), "--method", "crosskd", "--crosskd.cut", "1"),
        *("--out", str(runs / "student")),
    )
    return runs / "student"


@pytest.fixture(scope="module")
def found(written: Written, student: Path) -> dict[str, Any]:
    """What `evaluate` finds."""
    return evaluated(str(student), written)


def run(*words: str) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(words)
    assert code == 0, said.getvalue()


def evaluated(model: str, written: Written) -> dict[str, Any]:
    out = written.folder.parent / "numbers.json"
    data = f"coco:{written.folder}"
    run("evaluate", model, "--data", data, "--skippable", "0.2", "--out", str(out))
    numbers: dict[str, Any] = json.loads(out.read_text())
    return numbers


def pycocotools(truth: dict[str, Any], detections: list[dict[str, Any]]) -> list[float]:
    """The twelve numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = truth
        gold.createIndex()
        judged = COCOeval(gold, gold.loadRes(detections), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return list(map(float, judged.stats))


def test_a_check_counts_what_there_is_and_names_every_defect(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", f"coco:{written.folder}"]) == 1
    said = capsys.readouterr()
    truth = written.truth
    crowds = sum(entry["iscrowd"] for entry in truth["annotations"])
    row = next(line for line in said.out.splitlines() if line.startswith("tune "))
    expected = [PICTURES["val"], PICTURES["val"] // 4, len(truth["annotations"]) - crowds, crowds]
    assert crowds > 0
    assert list(map(int, row.split()[1:5])) == expected
    assert f"\n{2 * (len(DEFECTS) + 1)} defect(s)" in said.out
    for part in PICTURES:
        assert f"{part}2017/cut.jpg" in said.err
        for number in range(500, 500 + len(DEFECTS)):
            assert f"instances_{part}2017.json, annotation {number}" in said.err


def test_the_student_knows_the_80_classes_in_the_order_of_their_ids(student: Path) -> None:
    names = checkpoint.load(student).spec.classes
    assert names == tuple(f"thing {number}" for number in IDS)


def test_the_evaluation_equals_that_of_pycocotools(
    written: Written, student: Path, found: dict[str, Any]
) -> None:
    detections = json.loads((student / "detections.json").read_text())
    ids = {entry["category_id"] for entry in detections}
    assert ids <= set(IDS)
    assert max(ids) > len(IDS)
    twelve = pycocotools(written.truth, detections)
    assert twelve[0] > 0.05
    ours = [value for name, value in found["metrics"].items() if name != "per_class"]
    assert ours == pytest.approx(twelve, abs=1e-9)
    assert found["images"] == PICTURES["val"]
    assert json.loads((student / "evaluation.json").read_text())["metrics"] == found["metrics"]


def test_predict_finds_what_the_evaluation_found(written: Written, student: Path) -> None:
    out = written.folder.parent / "predictions"
    pictures = str(written.folder / "val2017")
    run("predict", str(student), pictures, "--data", f"coco:{written.folder}", "--out", str(out))
    story = json.loads((out / "images.json").read_text())
    assert list(story["skipped"]) == [f"{pictures}/cut.jpg"]
    mine, theirs = (
        sorted(
            json.loads((folder / "detections.json").read_text()),
            key=lambda entry: (entry["image_id"], -entry["score"]),
        )
        for folder in (out, student)
    )
    assert len(mine) == len(theirs) > 20
    for one, other in zip(mine, theirs, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


def test_the_exported_file_is_as_good_as_the_student(
    written: Written, student: Path, found: dict[str, Any]
) -> None:
    file = str(written.folder.parent / "student.onnx")
    data = ["--data", f"coco:{written.folder}", "--skippable", "0.2"]
    run("export", str(student), "--out", file, *data)
    theirs = evaluated(file, written)["metrics"]
    for name, value in found["metrics"].items():
        assert theirs[name] == pytest.approx(value, abs=1e-3), name
