"""The feature pyramid that stands on a backbone."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from detdistill.levels import Levels


class ExtraLevels(ExtraFPNBlock):  # type: ignore[misc]
    """Coarser levels, each a stride-2 convolution of the one before.

    The first is made from the pyramid's last level, or from the backbone's, of `inputs` channels.
    """

    def __init__(self, channels: int, count: int, *, inputs: int | None, relu: bool) -> None:
        super().__init__()
        widths = [inputs or channels] + [channels] * (count - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, channels, 3, stride=2, padding=1) for width in widths
        )
        self.from_backbone = inputs is not None
        self.relu = relu

    def forward(
        self, results: list[Tensor], inputs: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Appends the extra levels to the pyramid."""
        source = inputs[-1] if self.from_backbone else results[-1]
        for i, conv in enumerate(self.convs):
            results.append(conv(F.relu(source) if self.relu and i else source))
            names.append(f"extra{i}")
            source = results[-1]
        return results, names


class Pyramid(nn.Module):
    """A feature pyramid: lateral 1×1, top-down sum, 3×3, and extra levels."""

    def __init__(
        self,
        inputs: tuple[int, ...],
        channels: int,
        extra: int = 0,
        *,
        extra_from: Literal["output", "backbone", "subsampling"] = "output",
        extra_relu: bool = False,
    ) -> None:
        super().__init__()
        source = inputs[-1] if extra_from == "backbone" else None
        levels: ExtraFPNBlock | None = None
        if extra and extra_from == "subsampling":
            levels = LastLevelMaxPool()
        elif extra:
            levels = ExtraLevels(channels, extra, inputs=source, relu=extra_relu)
        self.fpn = FeaturePyramidNetwork(list(inputs), channels, levels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.constant_(cast("Tensor", module.bias), 0.0)

    def forward(self, levels: Levels) -> Levels:
        """Backbone maps -> maps of equal width, fine to coarse."""
        named: Any = OrderedDict((str(i), level) for i, level in enumerate(levels))
        return tuple(self.fpn(named).values())
