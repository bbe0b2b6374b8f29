"""A checkpoint of another framework becomes a teacher."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.terminal import detdistill
from tests.interop.foreign import CLASSES, GFL, TENSORS

import detdistill as package
from detdistill.interop import checkpoint


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "gfl"
    done = detdistill("import", "mmdet", GFL, "--out", folder)
    assert done.code == 0, done.err
    words = " ".join(done.out.split())
    assert f"loaded {TENSORS} missing 0 unexpected 0" in words
    assert "left out: the training log" in words
    assert words.endswith(f"The detector, gfl: {folder / 'student.safetensors'}")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A COCO folder of two pictures with the checkpoint's classes."""
    numbers = np.random.default_rng(0)
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        for i in (1, 2):
            pixels = numbers.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f"{i}.png")
        content = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "height": 64, "width": 96} for i in (1, 2)
            ],
            "annotations": [
                {"id": i, "image_id": i, "category_id": i, "bbox": [8, 8, 40, 40], "iscrowd": 0}
                | {"area": 1600}
                for i in (1, 2)
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
        }
        file = tmp_path / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(content))
    return tmp_path


def test_it_is_evaluated_and_teaches(imported: Path, pictures: Path, tmp_path: Path) -> None:
    done = detdistill("evaluate", imported, "--data", f"coco:{pictures}")
    assert done.code == 0, done.err
    done = detdistill(
        *("distill", "--student", imported, "--teacher", imported, "--method", "crosskd+pkd"),
        *("--data", f"coco:{pictures}", "--steps", "1", "--batch_size", "2"),
        *("--optimizer.warmup_steps", "0", "--out", tmp_path / "run"),
    )
    assert done.code == 0, done.err
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert line["distill"]["crosskd/cls"] < 1e-4, "the student equals its teacher"


def test_python_has_the_same_verb(imported: Path, tmp_path: Path) -> None:
    found = package.import_checkpoint("mmdet", str(GFL), out=str(tmp_path / "a.safetensors"))
    assert found["architecture"]["family"] == "gfl"
    assert len(found["loaded"]) == TENSORS
    ours = checkpoint.load(tmp_path / "a.safetensors")
    assert checkpoint.fingerprint(ours) == checkpoint.fingerprint(checkpoint.load(imported))


def test_mistakes_are_one_sentence(imported: Path, tmp_path: Path) -> None:
    again = detdistill("import", "mmdet", tmp_path / "never opened.pth", "--out", imported)
    assert again.code == 2
    assert "--overwrite" in again.err
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    lost = detdistill("import", "torchvision", tmp_path / "a.pth", "--out", tmp_path / "b")
    assert lost.code == 2
    assert lost.err.count("\n") == 1
    assert "--preset" in lost.err
    other = detdistill("import", "yolo", tmp_path / "a.pth", "--out", tmp_path / "b")
    assert other.code == 2
    assert "'mmdet', 'torchvision'" in other.err
