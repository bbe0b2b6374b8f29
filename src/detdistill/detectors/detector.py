"""What every detector offers: outputs, losses of its own, detections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from detdistill.structures import (
    EVERYTHING,
    Detections,
    DetectorOutput,
    Reads,
    Spec,
    Targets,
    Truth,
    local_mean,
)


class Detector(nn.Module, ABC):
    """An object detector. It normalises its own input, so any two can share a batch."""

    spec: Spec
    architecture: Any
    head: nn.Module

    @abstractmethod
    def forward(
        self, images: Tensor, sizes: Tensor | None = None, reads: Reads = EVERYTHING
    ) -> DetectorOutput:
        """The same output in every mode.

        Args:
            images: (B, 3, H, W) RGB, 0 to 255, uint8 or float, padded at the right and the bottom.
            sizes: (B, 2) heights and widths without padding; None if there is none.
            reads: what will be read; predictions, towers and backbone maps are only there if asked.
        """

    @abstractmethod
    def criterion(
        self,
        output: DetectorOutput,
        truth: Truth,
        world_mean: Callable[[Tensor], Tensor] = local_mean,
    ) -> tuple[dict[str, Tensor], Targets]:
        """The detector's own losses by name, and the label assignment behind them."""

    @abstractmethod
    def detect(self, output: DetectorOutput, sizes: Tensor) -> Detections:
        """Objects found, at most a fixed number per image, clipped to `sizes` (B, 2)."""
