"""The decoder of Deformable DETR: queries that look for one object each.

Source: Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection",
sections 4.1 and 4.2.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrDecoderLayer,
    DeformableDetrMLPPredictionHead,
)

from detdistill.boxes import extents, from_centers
from detdistill.detectors.head import RARE
from detdistill.detectors.query_architecture import QueryArchitecture
from detdistill.detectors.transformer import config_of, geometry_of, start
from detdistill.structures import EncoderTrace, QueryPredictions

BOX_LAYERS = 3
SMALL_BOX = -2.0
"""What a fresh box branch says of width and height, before the sigmoid."""


class Decoder(nn.Module):
    """Queries that look at an encoder's memory, each for one object, layer after layer."""

    def __init__(self, architecture: QueryArchitecture) -> None:
        super().__init__()
        config, channels = config_of(architecture), architecture.neck_channels
        count = architecture.decoder_layers
        self.layers = nn.ModuleList(DeformableDetrDecoderLayer(config) for _ in range(count))
        self.queries = nn.Embedding(architecture.queries, 2 * channels)
        self.reference_points = nn.Linear(channels, 2)
        self.refine = architecture.refine
        branches = count if self.refine else 1
        self.cls = nn.ModuleList(
            nn.Linear(channels, len(architecture.classes)) for _ in range(branches)
        )
        self.box = nn.ModuleList(
            DeformableDetrMLPPredictionHead(channels, channels, 4, BOX_LAYERS)
            for _ in range(branches)
        )
        start(self.layers)
        self._initialise_branches()

    def resume(self, trace: EncoderTrace) -> QueryPredictions:
        """What every layer says of a memory, first to last; one branch speaks for all or each own.

        With refinement, a layer looks around the box that the one before has found.
        """
        position, hidden = self.queries.weight.repeat(trace.memory.shape[0], 1, 1).chunk(2, dim=-1)
        points = self.reference_points(position).float().sigmoid()
        geometry = geometry_of(trace)
        logits, boxes = [], []
        for i, layer in enumerate(self.layers):
            branch = i if self.refine else 0
            hidden = layer(
                hidden,
                position,
                _on_levels(points, trace.valid_ratios),
                encoder_hidden_states=trace.memory,
                encoder_attention_mask=~trace.padding,
                **geometry,
            )
            found = _moved(points, self.box[branch](hidden))
            logits.append(self.cls[branch](hidden))
            boxes.append(from_centers(found) * extents(trace.sizes))
            if self.refine:
                points = found.detach()
        return QueryPredictions(logits=tuple(logits), boxes=tuple(boxes))

    def _initialise_branches(self) -> None:
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)
        for branch in self.cls:
            nn.init.constant_(cast("Tensor", branch.bias), math.log(RARE / (1 - RARE)))
        for branch in self.box:
            last = cast("Any", branch).layers[-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        nn.init.constant_(cast("Any", self.box[0]).layers[-1].bias[2:], SMALL_BOX)


def _on_levels(points: Tensor, valid_ratios: Tensor) -> Tensor:
    """Points or boxes (B, Q, 2 or 4) of images -> (B, Q, L, 2 or 4) of padded levels."""
    ratios = valid_ratios.repeat(1, 1, points.shape[-1] // 2)
    return points.unsqueeze(2) * ratios.unsqueeze(1)


def _moved(points: Tensor, raw: Tensor) -> Tensor:
    """Boxes (B, Q, 4) as centre and extent from 0 to 1: points or boxes moved before a sigmoid."""
    known = points.logit(eps=1e-5)
    return (raw.float() + F.pad(known, (0, 4 - known.shape[-1]))).sigmoid()
