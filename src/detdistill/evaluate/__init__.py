"""How good a detector is (COCO's numbers), how large and how fast."""

from detdistill.evaluate.alike import alike
from detdistill.evaluate.coco import Metrics, evaluate
from detdistill.evaluate.run import (
    Detector,
    detect,
    evaluate_detector,
    padded_extent,
    placed,
    predict,
    unasked,
)
from detdistill.evaluate.speed import facts

__all__ = [
    "Detector",
    "Metrics",
    "alike",
    "detect",
    "evaluate",
    "evaluate_detector",
    "facts",
    "padded_extent",
    "placed",
    "predict",
    "unasked",
]
