"""How good a detector is (COCO's numbers), how large and how fast."""

from detdistill.evaluate.coco import Metrics, evaluate
from detdistill.evaluate.run import (
    Detector,
    best_device,
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
    "best_device",
    "detect",
    "evaluate",
    "evaluate_detector",
    "facts",
    "placed",
    "predict",
    "unasked",
]
