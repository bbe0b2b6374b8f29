"""The encoder of Deformable DETR: cells of all levels that look at each other.

Source: Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection",
section 4.1.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrSinePositionEmbedding,
)

from detdistill.detectors.query_architecture import QueryArchitecture
from detdistill.detectors.transformer import EncoderLayer, config_of, geometry_of, start
from detdistill.levels import Levels
from detdistill.structures import EncoderTrace


class Encoder(nn.Module):
    """Every cell of every level looks at a few places around it on all levels."""

    def __init__(self, architecture: QueryArchitecture) -> None:
        super().__init__()
        config, channels = config_of(architecture), architecture.neck_channels
        self.layers = nn.ModuleList(
            EncoderLayer(config) for _ in range(architecture.encoder_layers)
        )
        self.position = DeformableDetrSinePositionEmbedding(channels // 2, normalize=True)
        self.level_embed = nn.Parameter(torch.randn(len(architecture.strides), channels))
        start(self.layers)

    def forward(self, neck: Levels, inside: Tensor, sizes: Tensor) -> EncoderTrace:
        """The memory of a neck.

        Args:
            neck: (B, C, H, W) per level.
            inside: (B, height, width) bool of the padded images: a pixel, not padding.
            sizes: (B, 2) heights and widths of the images without padding.
        """
        masks = [_shrunk(inside, level) for level in neck]
        cells = EncoderTrace(
            memory=torch.cat([level.flatten(2).transpose(1, 2) for level in neck], dim=1),
            shapes=tuple((level.shape[2], level.shape[3]) for level in neck),
            valid_ratios=torch.stack([_valid_ratio(mask) for mask in masks], dim=1),
            padding=~torch.cat([mask.flatten(1) for mask in masks], dim=1),
            sizes=sizes,
        )
        return replace(cells, memory=self._attend(cells, self._positions(neck, masks)))

    def _attend(self, cells: EncoderTrace, positions: Tensor) -> Tensor:
        """(B, S, C) what the layers make of cells at positions (B, S, C)."""
        geometry, memory = geometry_of(cells), cells.memory
        points = _reference_points(cells)
        for layer in self.layers:
            memory = layer(memory, ~cells.padding, positions, reference_points=points, **geometry)
        return memory

    def _positions(self, neck: Levels, masks: list[Tensor]) -> Tensor:
        """(B, S, C) which place on which level a cell is."""
        return torch.cat(
            [
                self.position(level.shape, level.device, torch.float32, mask)
                .flatten(2)
                .transpose(1, 2)
                + own
                for level, mask, own in zip(neck, masks, self.level_embed, strict=True)
            ],
            dim=1,
        )


def _reference_points(cells: EncoderTrace) -> Tensor:
    """(B, S, L, 2) x and y, from 0 to 1 of each padded level, of where a cell is in its image."""
    ratios, points = cells.valid_ratios, []
    for (height, width), ratio in zip(cells.shapes, ratios.unbind(dim=1), strict=True):
        y, x = (torch.arange(n, device=ratios.device) + 0.5 for n in (height, width))
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        middle = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2)
        extent = torch.stack([ratio[:, 0] * width, ratio[:, 1] * height], dim=-1)
        points.append(middle / extent.unsqueeze(1))
    return torch.cat(points, dim=1).unsqueeze(2) * ratios.unsqueeze(1)


def _shrunk(inside: Tensor, level: Tensor) -> Tensor:
    """(B, height, width) of pixels -> (B, H, W) of a level's cells, by their nearest pixel."""
    return F.interpolate(inside.unsqueeze(0).float(), level.shape[-2:])[0].bool()


def _valid_ratio(mask: Tensor) -> Tensor:
    """(B, H, W) -> (B, 2) share of the width and of the height that is not padding."""
    return torch.stack([mask[:, 0].float().mean(dim=1), mask[:, :, 0].float().mean(dim=1)], dim=-1)
