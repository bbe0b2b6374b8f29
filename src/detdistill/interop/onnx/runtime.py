"""A detector that is an ONNX file, run with onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detdistill.errors import MissingExtraError, UserError
from detdistill.interop.onnx.graph import SELECTED
from detdistill.structures import PREDICTIONS, Detections, Reads, Spec

CARD = "detdistill"
"""Under which a file keeps what is to be known of it, as JSON."""


class OnnxDetector(nn.Module):
    """What evaluation and prediction ask of a detector; on the processor.

    Raises:
        UserError: the file cannot be opened, is none of ours, or does not select detections.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.session = open_session(file)
        self.card = _card(self.session, file)
        self.spec = Spec(
            family=self.card["family"],
            classes=tuple(self.card["classes"]),
            strides=tuple(self.card["strides"]),
            channels=0,
        )

    @property
    def resize(self) -> tuple[int, int] | None:
        """Largest lengths of a picture's shorter and longer side in the training; None for any."""
        found = self.card["resize"]
        return tuple(found) if found else None

    @property
    def letterbox(self) -> int | None:
        """Side of the square that pictures were padded to in the training; None for none."""
        return self.card.get("letterbox")

    def forward(
        self,
        images: Tensor,
        sizes: Tensor | None = None,
        reads: Reads = PREDICTIONS,  # noqa: ARG002 - a file has nothing else
    ) -> dict[str, Tensor]:
        """(B, 3, H, W) uint8 RGB and (B, 2) heights and widths -> the file's outputs by name."""
        if sizes is None:
            sizes = torch.tensor([images.shape[-2:]]).expand(len(images), 2)
        return run(self.session, images, sizes)

    def detect(self, output: dict[str, Tensor], sizes: Tensor) -> Detections:  # noqa: ARG002
        """The file has done it already."""
        return Detections(**{name: output[name] for name in SELECTED})


def run(session: Any, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:  # noqa: ANN401
    """The outputs of a file by their names.

    Raises:
        UserError: onnxruntime cannot compute them.
    """
    names = [output.name for output in session.get_outputs()]
    inputs = {"images": images.cpu().numpy(), "sizes": sizes.cpu().numpy()}
    try:
        found = session.run(names, inputs)
    except Exception as error:  # onnxruntime's errors have no common class
        raise UserError(
            f"onnxruntime cannot run the file on {tuple(images.shape)} images: "
            f"{' '.join(str(error).split())}."
        ) from error
    return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}


def open_session(file: Path) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """A file, ready to be run.

    Raises:
        UserError: it is missing or broken, or onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("An ONNX file", "onnx", error) from error
    if not file.is_file():
        raise UserError(f"There is no file {file}.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise UserError(
            f"{file} cannot be opened as ONNX: {' '.join(str(error).split())}."
        ) from error


def _card(session: Any, file: Path) -> dict[str, Any]:  # noqa: ANN401
    entries = session.get_modelmeta().custom_metadata_map
    if CARD not in entries:
        raise UserError(f"{file} says nothing of its classes: it was not made by our 'export'.")
    if {output.name for output in session.get_outputs()} != set(SELECTED):
        raise UserError(
            f"{file} has raw predictions, not detections: export it again without --raw."
        )
    card: dict[str, Any] = json.loads(entries[CARD])
    return card
