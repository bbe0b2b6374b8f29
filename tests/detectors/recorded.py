"""Numbers that MMDetection 3.3 produced on narrow nets with random weights, as test cases.

A file holds the weights under our names, three batches (`A`: two images, `B`: one of odd size, `C`:
one that is smaller and without objects) and, for each, what came out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detdistill.detectors import Architecture, Detector, from_architecture
from detdistill.detectors.architecture import Points, Preprocessing, Selection
from detdistill.detectors.backbones import Backbone
from detdistill.structures import Truth

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
LEVELS = range(5)
POINTS: dict[str, Any] = {
    "family": "fcos",
    "extra_relu": True,
    "anchor_scale": 0.0,
    "anchor_offset": 0.5,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "gfl": {"family": "gfl"},
    "atss": {"family": "atss", "quality_on": "reg"},
    "retinanet": {
        "family": "retinanet",
        "extra_from": "backbone",
        "norm_groups": 0,
        "level_scales": False,
        "anchor_scale": 4.0,
        "anchor_octaves": 3,
        "anchor_ratios": (0.5, 1.0, 2.0),
        "selection": Selection(nms_iou=0.5),
    },
    "fcos": {
        **POINTS,
        "quality_on": "cls",
        "selection": Selection(nms_iou=0.5),
        "preprocessing": Preprocessing(
            mean=(102.9801, 115.9465, 122.7717), std=(1.0, 1.0, 1.0), bgr=True
        ),
    },
    "fcos_tricks": {
        **POINTS,
        "quality_on": "reg",
        "tower_bias": True,
        "points": Points(radius=1.5, in_strides=True, box_loss="giou"),
        "preprocessing": Preprocessing(
            mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), bgr=True
        ),
    },
}


@cache
def numbers(name: str) -> dict[str, Tensor]:
    """Everything in a file."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def padded(boxes: list[Tensor], labels: list[Tensor], sizes: Tensor) -> Truth:
    """The objects of several images."""
    valid = pad_sequence(
        [torch.ones(len(image), dtype=torch.bool) for image in boxes], batch_first=True
    )
    return Truth(
        boxes=pad_sequence(boxes, batch_first=True),
        labels=pad_sequence(labels, batch_first=True),
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=sizes,
    )


@dataclass(frozen=True)
class Recording:
    """A detector as it was recorded."""

    name: str

    @property
    def numbers(self) -> dict[str, Tensor]:
        return numbers(f"{self.name}_r18_narrow")

    def detector(self) -> Detector:
        """The detector with the recorded weights."""
        narrow = from_architecture(
            Architecture(
                **{
                    "backbone": Backbone(
                        name="resnet18",
                        width=8,
                        stages=(2, 3, 4),
                        frozen_stages=1,
                        frozen_norm=True,
                    ),
                    "classes": tuple("abcde"),
                    "neck_channels": 16,
                    "tower_channels": 16,
                    "norm_groups": 4,
                    **SETTINGS[self.name],
                }
            )
        )
        prefix = "weight."
        weights = {k.removeprefix(prefix): v for k, v in self.numbers.items() if prefix in k}
        narrow.load_state_dict(weights)
        return narrow

    def images(self, case: str) -> list[Tensor]:
        """(3, H, W) RGB each."""
        raw = (f"{case}.raw.{i}" for i in range(2))
        return [self.numbers[key].flip(0) for key in raw if key in self.numbers]

    def batch(self, case: str) -> Tensor:
        """(B, 3, 96, 128) uint8."""
        batch = torch.zeros(len(self.images(case)), 3, 96, 128, dtype=torch.uint8)
        for slot, image in zip(batch, self.images(case), strict=True):
            slot[:, : image.shape[1], : image.shape[2]] = image
        return batch

    def truth(self, case: str) -> Truth:
        images = self.images(case)
        return padded(
            [self.numbers[f"{case}.gt_boxes.{i}"].reshape(-1, 4) for i in range(len(images))],
            [self.numbers[f"{case}.gt_labels.{i}"] for i in range(len(images))],
            torch.tensor([image.shape[1:] for image in images]),
        )

    def levels(self, case: str, name: str) -> list[Tensor]:
        """One map per level; none if there is no such recording."""
        keys = [f"{case}.{name}.{level}" for level in LEVELS]
        return [self.numbers[key] for key in keys if key in self.numbers]
