"""Two towers of convolutions over a pyramid, and what they predict in every cell."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detdistill.detectors.architecture import Architecture
from detdistill.detectors.norms import GroupNorm
from detdistill.detectors.priors import Priors
from detdistill.levels import Levels
from detdistill.structures import (
    EVERYTHING,
    BoxCoder,
    DensePredictions,
    Reads,
    Towers,
)
from detdistill.winograd import over_levels

RARE = 0.01
"""Class probability that a fresh head gives to every prior."""

BoxActivation = Callable[[Tensor, int], Tensor]
"""Turns what a box branch computed on a level of some stride into what its coder reads."""


def linear(raw: Tensor, stride: int) -> Tensor:  # noqa: ARG001
    """A box branch that emits what its convolution computed."""
    return raw


class ConvBlock(nn.Module):
    """3×3 convolution and, with groups, GroupNorm; the activation is the tower's."""

    def __init__(self, inputs: int, outputs: int, *, groups: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias or not groups)
        self.norm = GroupNorm(groups, outputs) if groups else nn.Identity()

    def forward(self, levels: Levels) -> Levels:
        """(B, inputs, H, W) -> (B, outputs, H, W), of each level."""
        return tuple(self.norm(level) for level in over_levels(self.conv, levels))


class DenseHead(nn.Module):
    """Two towers of convolutions over every level, and what they predict there."""

    def __init__(
        self, architecture: Architecture, *, coder: BoxCoder, activation: BoxActivation = linear
    ) -> None:
        super().__init__()
        width, count = architecture.tower_channels, architecture.priors_per_cell
        self.cls_tower = _tower(architecture)
        self.reg_tower = _tower(architecture)
        self.cls = nn.Conv2d(width, count * len(architecture.classes), 3, padding=1)
        self.reg = nn.Conv2d(width, count * coder.numbers, 3, padding=1)
        self.quality_on = architecture.quality_on
        self.quality = nn.Conv2d(width, count, 3, padding=1) if self.quality_on else None
        self.strides = architecture.strides
        scales = nn.Parameter(torch.ones(len(self.strides)))
        self.scales = scales if architecture.level_scales else None
        self.priors = Priors(
            scale=architecture.anchor_scale,
            octaves=architecture.anchor_octaves,
            ratios=architecture.anchor_ratios,
            offset=architecture.anchor_offset,
            whole_pixels=architecture.whole_pixels,
        )
        self.coder = coder
        self.activation = activation
        self._initialise(architecture.head_deviation)

    def _initialise(self, deviation: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(cast("Tensor", self.cls.bias), math.log(RARE / (1 - RARE)))

    def forward(
        self, neck: Levels, reads: Reads = EVERYTHING
    ) -> tuple[DensePredictions | None, Towers]:
        """Predictions and the cuts of the towers, as far as they are read."""
        highest = None if reads.predictions else max(reads.towers, default=0)
        cls, cls_cuts = self._climb(self.cls_tower[:highest], neck, reads)
        reg, reg_cuts = self._climb(self.reg_tower[:highest], neck, reads)
        predictions = self._predict(cls, reg) if reads.predictions else None
        return predictions, Towers(cls=cls_cuts, reg=reg_cuts)

    def resume(self, towers: Towers, *, start: int) -> DensePredictions:
        """Predictions from what block `start` put out (0: the neck), after its activation."""
        everything = Reads()
        cls, _ = self._climb(self.cls_tower, towers.cls[start], everything, start)
        reg, _ = self._climb(self.reg_tower, towers.reg[start], everything, start)
        return self._predict(cls, reg)

    def _climb(
        self, tower: nn.ModuleList, levels: Levels, reads: Reads, start: int = 0
    ) -> tuple[Levels, dict[int, Levels]]:
        """Runs the blocks after `start`, keeping the cuts that are read."""
        cuts = {start: levels} if start in reads.towers else {}
        for i, block in enumerate(tower[start:], start + 1):
            raw = block(levels)
            levels = tuple(F.relu(level) for level in raw)
            if i in reads.towers:
                cuts[i] = raw if reads.preactivation else levels
        return levels, cuts

    def _predict(self, cls: Levels, reg: Levels) -> DensePredictions:
        """What the ends of the towers say, with the priors they speak of."""
        return DensePredictions(
            logits=over_levels(self.cls, cls),
            boxes=self._boxes(reg),
            quality=self._quality(cls, reg),
            priors=self.priors.of_levels(cls, self.strides),
            strides=self.strides,
            coder=self.coder,
        )

    def _boxes(self, reg: Levels) -> Levels:
        raw = over_levels(self.reg, reg)
        if self.scales is not None:
            raw = tuple(level * scale for level, scale in zip(raw, self.scales, strict=True))
        return tuple(self.activation(m, s) for m, s in zip(raw, self.strides, strict=True))

    def _quality(self, cls: Levels, reg: Levels) -> Levels | None:
        if self.quality is None:
            return None
        return over_levels(self.quality, cls if self.quality_on == "cls" else reg)


def _tower(architecture: Architecture) -> nn.ModuleList:
    widths = [architecture.neck_channels] + [architecture.tower_channels] * architecture.tower_depth
    return nn.ModuleList(
        ConvBlock(i, o, groups=architecture.norm_groups, bias=architecture.tower_bias)
        for i, o in pairwise(widths)
    )
