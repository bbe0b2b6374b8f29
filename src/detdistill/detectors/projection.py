"""The neck of Deformable DETR, which has no top-down path."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from detdistill.detectors.norms import GroupNorm
from detdistill.detectors.query_architecture import QueryArchitecture
from detdistill.levels import Levels


class Projection(nn.Module):
    """Every level on its own, brought to one width and normed."""

    def __init__(self, inputs: tuple[int, ...], architecture: QueryArchitecture) -> None:
        super().__init__()
        channels, extra = architecture.neck_channels, architecture.extra_levels
        widths = (inputs[-1], *[channels] * (extra - 1))[:extra]
        self.lateral = nn.ModuleList(_projection(width, architecture, size=1) for width in inputs)
        self.extra = nn.ModuleList(_projection(width, architecture, size=3) for width in widths)

    def forward(self, levels: Levels) -> Levels:
        """Backbone maps -> maps of equal width, fine to coarse; extra ones halve the last."""
        projected = [layer(level) for layer, level in zip(self.lateral, levels, strict=True)]
        source = levels[-1]
        for layer in self.extra:
            source = layer(source)
            projected.append(source)
        return tuple(projected)


def _projection(inputs: int, architecture: QueryArchitecture, *, size: int) -> nn.Sequential:
    """A 1×1 convolution, or a 3×3 one that halves the map, and GroupNorm."""
    channels = architecture.neck_channels
    conv = nn.Conv2d(
        inputs, channels, size, stride=size // 2 + 1, padding=size // 2, bias=architecture.neck_bias
    )
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    norm = GroupNorm(architecture.norm_groups, channels)
    return nn.Sequential(OrderedDict[str, nn.Module](conv=conv, norm=norm))
