"""Random ground truth and detections with everything in them that evaluators disagree on."""

from __future__ import annotations

from typing import Any

import numpy as np

Records = list[dict[str, Any]]


def random_set(seed: int) -> tuple[dict[str, Any], Records]:
    """Crowds, tied scores, touching and doubled boxes, empty images, images without detections,
    a category without objects, more than 100 detections of an image, boxes without extent.
    """
    random = np.random.default_rng(seed)
    images = [{"id": 7 * i + 1, "width": 200, "height": 200} for i in range(random.integers(2, 8))]
    categories = [{"id": 3 * i + 2, "name": f"class {i}"} for i in range(random.integers(2, 6))]
    whole_pixels = bool(random.integers(2))
    annotations: Records = []
    detections: Records = []
    for image in images[1:]:
        for _ in range(random.integers(0, 12)):
            category = int(random.choice(categories[:-1])["id"])
            box = _box(random, whole_pixels=whole_pixels)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3] * random.choice([1.0, 0.7]),
                    "iscrowd": int(random.random() < 0.2),
                }
            )
            detections += _near(random, annotations[-1], categories, whole_pixels=whole_pixels)
    detections += _many(random, images[0], categories[0])
    random.shuffle(detections)
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def _box(random: np.random.Generator, *, whole_pixels: bool) -> list[float]:
    if whole_pixels:
        return [*(10.0 * random.integers(0, 6, 2)), *(16.0 * random.integers(0, 10, 2))]
    return [*random.uniform(0, 60, 2), *random.uniform(1, 140, 2)]


def _near(
    random: np.random.Generator, truth: dict[str, Any], categories: Records, *, whole_pixels: bool
) -> Records:
    found = []
    for _ in range(random.integers(0, 4)):
        shift = 2 * random.integers(-1, 2, 4) if whole_pixels else random.normal(0, 4, 4)
        left, top, width, height = np.array(truth["bbox"]) + shift
        right_class = random.random() < 0.8
        found.append(
            {
                "image_id": truth["image_id"],
                "category_id": truth["category_id"]
                if right_class
                else int(random.choice(categories)["id"]),
                "bbox": [float(left), float(top), float(max(width, 0)), float(max(height, 0))],
                "score": float(np.round(random.random(), 1)),
            }
        )
    return found


def _many(random: np.random.Generator, image: dict[str, Any], category: dict[str, Any]) -> Records:
    return [
        {
            "image_id": image["id"],
            "category_id": category["id"],
            "bbox": [float(value) for value in _box(random, whole_pixels=True)],
            "score": float(np.round(random.random(), 1)),
        }
        for _ in range(130 * random.integers(0, 2))
    ]
