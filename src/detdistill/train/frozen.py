"""A teacher that cannot be trained by accident."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Self, cast

import torch
from torch import Tensor, nn

from detdistill.detectors import Detector
from detdistill.structures import AnyHead, DetectorOutput, Reads


class Frozen(nn.Module):
    """Holds a detector where no optimizer, checkpoint, `train()` or broadcast finds it.

    The detector stands in a tuple, which PyTorch does not search for parameters: it adds nothing
    to `parameters()`, `buffers()`, `state_dict()` or `modules()`. It still moves with `to()`.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self._held = (detector.eval().requires_grad_(requires_grad=False),)

    @property
    def detector(self) -> Detector:
        """The detector itself, in evaluation mode."""
        return self._held[0]

    @property
    def head(self) -> AnyHead:
        """The head, to go on from inside; gradients pass through it to what it is given."""
        return cast("AnyHead", self.detector.head)

    @torch.no_grad()
    def forward(self, images: Tensor, sizes: Tensor | None, reads: Reads) -> DetectorOutput:
        """What the detector says. Not in inference mode: no loss could use such tensors."""
        output: DetectorOutput = self.detector(images, sizes, reads)
        return output if reads.neck else replace(output, neck=())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Device and layout reach the detector, although it is no submodule."""
        super()._apply(fn, recurse=recurse)
        self.detector._apply(fn, recurse=recurse)  # noqa: SLF001 - as a parent module does
        return self
