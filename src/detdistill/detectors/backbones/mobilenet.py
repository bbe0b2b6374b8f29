"""MobileNetV2 of torchvision as a backbone.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018. The
maps are those that detectors read in MMDetection: at full width 24, 32, 96 and, behind the last
1×1 convolution, 1280 channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models import mobilenetv2

from detdistill.detectors.backbones.features import STANDARD_WIDTH, Backbone, Features
from detdistill.levels import Levels

ENDS = (3, 6, 13, 18)
"""Where in torchvision's `features` the last block of each stage stands."""


class MobileNetV2(Features):
    """A MobileNetV2 whose weights are named as torchvision names them."""

    def __init__(self, settings: Backbone) -> None:
        super().__init__(settings)
        whole = mobilenetv2.MobileNetV2(width_mult=settings.width / STANDARD_WIDTH)
        kept = ENDS[max(settings.stages) - 1] + 1
        self.features = whole.features[:kept]
        self.channels = tuple(
            self.features[ENDS[stage - 1]].out_channels for stage in settings.stages
        )
        beyond = range(kept, len(whole.features))
        self.ignored = ("classifier.", *(f"features.{i}." for i in beyond))
        self.freeze()

    def forward(self, images: Tensor) -> Levels:
        """See `Features.forward`."""
        read = [ENDS[stage - 1] for stage in self.settings.stages]
        x, levels = images, []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in read:
                levels.append(x)
        return tuple(levels)

    def parts(self, stages: int) -> Sequence[nn.Module]:
        """See `Features.parts`."""
        return list(self.features)[: ENDS[stages - 1] + 1]
