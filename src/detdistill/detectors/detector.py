"""What every detector offers: outputs, losses of its own, detections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from detdistill.detectors.architecture import AnyArchitecture, Preprocessing
from detdistill.detectors.backbones import Features
from detdistill.levels import within
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

_PREPROCESSING = Preprocessing()


class Detector(nn.Module, ABC):
    """An object detector. It normalises its own input, so any two can share a batch."""

    spec: Spec
    architecture: AnyArchitecture
    """All that is needed to build it again, but for its weights."""
    backbone: Features
    head: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing = _PREPROCESSING) -> None:
        super().__init__()
        self.bgr = preprocessing.bgr
        self.register_buffer("mean", _per_channel(preprocessing.mean), persistent=False)
        self.register_buffer("std", _per_channel(preprocessing.std), persistent=False)

    def normalise(self, images: Tensor, sizes: Tensor | None) -> Tensor:
        """Zero mean, unit variance, in the detector's channel order; padding becomes zero."""
        if self.bgr:
            images = images.flip(1)
        normal = (images.to(self.mean.dtype) - self.mean) / self.std
        if sizes is None:
            return normal
        return normal * within(sizes, images.shape[-2:]).unsqueeze(1)

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


def parameter_count(module: nn.Module) -> int:
    """How many numbers the parameters of a detector, or of a part, consist of."""
    return sum(parameter.numel() for parameter in module.parameters())


def whole(images: Tensor) -> Tensor:
    """(B, 2) heights and widths of images without padding."""
    return torch.tensor([images.shape[-2:]], device=images.device).expand(len(images), -1)


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
