"""How MMDetection trained a detector, where ours would be trained in another way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

FOCAL = {"type": "FocalLoss", "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}
CENTERNESS = {"type": "CrossEntropyLoss", "loss_weight": 1.0}
ATSS = {"type": "ATSSAssigner", "topk": 9, "ignore_iof_thr": -1}

OURS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "gfl": {
            "bbox_head.loss_cls": {"type": "QualityFocalLoss", "beta": 2.0, "loss_weight": 1.0},
            "bbox_head.loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
            "bbox_head.loss_dfl": {"type": "DistributionFocalLoss", "loss_weight": 0.25},
            "train_cfg.assigner": ATSS,
        },
        "atss": {
            "bbox_head.loss_cls": FOCAL,
            "bbox_head.loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
            "bbox_head.loss_centerness": CENTERNESS,
            "train_cfg.assigner": ATSS,
        },
        "retinanet": {
            "bbox_head.loss_cls": FOCAL,
            "bbox_head.loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
            "train_cfg.assigner": {
                "type": "MaxIoUAssigner",
                "pos_iou_thr": 0.5,
                "neg_iou_thr": 0.4,
                "min_pos_iou": 0,
                "ignore_iof_thr": -1,
            },
        },
        "fcos": {
            "bbox_head.loss_cls": FOCAL,
            "bbox_head.loss_bbox": {"loss_weight": 1.0},
            "bbox_head.loss_centerness": CENTERNESS,
        },
    }
)
"""What our criteria and assigners do, in MMDetection's words."""


def differences(family: str, model: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each setting of the training that is not ours; detections are the same."""
    for place, expected in OURS.get(family, {}).items():
        section, _, entry = place.partition(".")
        given = (model.get(section) or {}).get(entry) or {}
        for key, ours in expected.items():
            if given.get(key, ours) != ours:
                found = f"{place}.{key} = {given[key]!r}"
                yield f"It was trained with {found}, here it would be {ours!r}."
