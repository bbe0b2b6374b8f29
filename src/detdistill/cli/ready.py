"""Detectors from files of either kind, ready to be run."""

from __future__ import annotations

from pathlib import Path

from detdistill.data import Resize
from detdistill.device import best_device
from detdistill.evaluate import Detector, placed
from detdistill.interop import checkpoint as checkpoints
from detdistill.interop.onnx.runtime import OnnxDetector
from detdistill.train.allocator import keep_freed_memory


def data_of(path: str) -> str:
    """What a detector is measured on if nobody says so: the data of its training, or `shapes`.

    Raises:
        UserError: there is no such detector.
    """
    known = None if Path(path).suffix == ".onnx" else checkpoints.data_of(path)
    return known or "shapes"


def load(path: str | Path) -> tuple[Detector, Resize | None]:
    """The detector of a run folder, a `.safetensors` or an `.onnx` file, and how it sees pictures.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        exported = OnnxDetector(path)
        return exported, Resize.of(exported.resize, exported.letterbox)
    if best_device().type == "cpu":
        keep_freed_memory()  # what is computed next has the same sizes, picture for picture
    resize = Resize.of(checkpoints.resize_of(path), checkpoints.letterbox_of(path))
    return placed(checkpoints.load(path)), resize
