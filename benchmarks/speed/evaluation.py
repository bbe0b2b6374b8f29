"""How long it takes to say how good detections are."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.speed.timing import Clock, Spread, in_turns

from detdistill.evaluate import coco

IMAGES, DETECTIONS, OBJECTS, CLASSES = 5000, 100, 7, 80
ROUNDS = 3


def measure(clock: Clock) -> dict[str, Any]:
    """Milliseconds of COCO's metrics on as many images as COCO has."""
    truth, found = made_up(IMAGES)
    times = in_turns({"metrics": lambda: coco.evaluate(truth, found)}, ROUNDS, clock)
    return {
        "images": IMAGES,
        "detections": DETECTIONS,
        "milliseconds": Spread.of(times["metrics"]).median,
    }


def made_up(images: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth, and detections at random places."""
    random = torch.Generator().manual_seed(0)
    truth = {
        "images": [{"id": i, "width": 640, "height": 480} for i in range(images)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)],
        "annotations": _rows(images, OBJECTS, random),
    }
    found = _rows(images, DETECTIONS, random)
    scores = torch.rand(len(found), generator=random).tolist()
    return truth, [row | {"score": score} for row, score in zip(found, scores, strict=True)]


def _rows(images: int, each: int, random: torch.Generator) -> list[dict[str, Any]]:
    boxes = torch.rand(images * each, 4, generator=random) * torch.tensor([500, 400, 130, 70]) + 1
    labels = torch.randint(1, CLASSES + 1, (images * each,), generator=random)
    return [
        {"image_id": number // each, "category_id": label, "bbox": box}
        for number, (label, box) in enumerate(zip(labels.tolist(), boxes.tolist(), strict=True))
    ]
