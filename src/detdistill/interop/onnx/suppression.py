"""Suppression of duplicates as one operator, which ONNX has under the name NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms


@torch.library.custom_op("detdistill::survivors", mutates_args=())
def survivors(boxes: Tensor, scores: Tensor, iou: float, most: int) -> Tensor:
    """Which boxes no better one of their class covers.

    Args:
        boxes: (B, C, 4).
        scores: (B, K, C) of each class; a box is of the classes in which its score is above 0.
        iou: overlap from which a better box of the class covers another.
        most: how many of each class to keep at most.

    Returns:
        (B, C) bool.
    """
    kept = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    for image, box, score in zip(kept, boxes, scores, strict=True):
        label, place = (score > 0).nonzero(as_tuple=True)
        best = batched_nms(box[place], score[label, place], label, iou)
        rank = torch.nn.functional.one_hot(label[best], len(score)).cumsum(dim=0)
        few = rank.gather(1, label[best].unsqueeze(1)).squeeze(1) <= most
        image[place[best[few]]] = True
    return kept


@survivors.register_fake
def _(boxes: Tensor, scores: Tensor, iou: float, most: int) -> Tensor:  # noqa: ARG001
    return boxes.new_empty(boxes.shape[:2], dtype=torch.bool)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How the exporter writes the operator; needs the extra `onnx`."""
    from onnxscript import opset20 as op

    def non_max_suppression(boxes: Any, scores: Any, iou: float, most: int) -> Any:  # noqa: ANN401
        chosen = op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[iou]),
            op.Constant(value_floats=[0.0]),
        )
        places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
        ones = op.Expand(op.Constant(value_floats=[1.0]), op.Shape(places, start=0, end=1))
        nothing = op.Expand(op.Constant(value_floats=[0.0]), op.Shape(boxes, start=0, end=2))
        return op.Cast(op.ScatterND(nothing, places, ones), to=BOOL)

    return {torch.ops.detdistill.survivors.default: non_max_suppression}


BOOL = 9
"""ONNX's number of the type."""
