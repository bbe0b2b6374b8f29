"""What every backbone offers: settings, maps, parts that stay as they are, room for weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor, nn

from detdistill.levels import Levels

STANDARD_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The settings of a feature extractor."""

    name: str = "resnet50"
    """`resnet50`, `resnext101_32x4d`, `mobilenetv2`, `swin_t`, or `timm/MODEL` for any timm model
    with feature maps."""
    width: int = STANDARD_WIDTH
    """Channels of the first stage of a ResNet before any expansion: 64, or 16 for R50(1/4). The
    others are as wide as published at 64, too, and in proportion otherwise."""
    stages: tuple[int, ...] = (1, 2, 3, 4)
    """Which stages are read; stage 1 has stride 4. Stages after the last one are not built."""
    frozen_stages: int = 0
    """How many stages are frozen, the stem with the first; 0 trains everything."""
    frozen_norm: bool = False
    """Keep BatchNorm's running statistics as they are, in training too."""
    zero_last_norm: bool = True
    """Start every residual block of a ResNet as the identity."""
    style: Literal["pytorch", "caffe"] = "pytorch"
    """Which convolution of a bottleneck has the stride: the middle one, or the first."""
    drop_path: float = 0.0
    """How often a Swin in training leaves out its last block, for some images; earlier blocks in
    proportion to their place."""


class Features(nn.Module, ABC):
    """Turns images into maps at several strides."""

    channels: tuple[int, ...]
    ignored: tuple[str, ...] = ()
    """How the names begin of what a classification network has and this one has not."""
    fresh: tuple[str, ...] = ()
    """How the names begin of what this one has and a classification network may lack."""

    def __init__(self, settings: Backbone) -> None:
        super().__init__()
        self.settings = settings
        self.strides = tuple(2 ** (stage + 1) for stage in settings.stages)

    @abstractmethod
    def forward(self, images: Tensor) -> Levels:
        """(B, 3, H, W) normalised -> the stages that are read, fine to coarse.

        A stage of stride s has ⌈H/s⌉ rows and ⌈W/s⌉ columns.
        """

    @abstractmethod
    def parts(self, stages: int) -> Sequence[nn.Module]:
        """What images pass through up to the end of the first so many stages."""

    def freeze(self) -> None:
        """Takes what the settings freeze out of the training; called once all parts are there."""
        for part in self._frozen():
            part.requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for frozen stages and frozen norms."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        if self.settings.frozen_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def wanted(self) -> Mapping[str, Tensor]:
        """The tensors of a classification network that belong here, by its names for them."""
        return self.state_dict()

    def fill(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over weights named as in `wanted`; what they lack stays as it is."""
        self.load_state_dict({**self.state_dict(), **weights})

    def _frozen(self) -> Sequence[nn.Module]:
        stages = self.settings.frozen_stages
        return self.parts(stages) if stages else ()
