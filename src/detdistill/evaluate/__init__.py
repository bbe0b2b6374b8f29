"""How good a detector is (COCO's numbers), how large and how fast."""

from detdistill.evaluate.coco import Metrics, evaluate
from detdistill.evaluate.run import (
    Detector,
    detect,
    evaluate_detector,
    placed,
    predict,
    unasked,
)
from detdistill.evaluate.speed import facts

__all__ = [
    "Detector",
    "Metrics",
    "detect",
    "evaluate",
    "evaluate_detector",
    "facts",
    "placed",
    "predict",
    "unasked",
]
