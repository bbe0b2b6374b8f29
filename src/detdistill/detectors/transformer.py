"""Encoder and decoder of Deformable DETR: layers of `transformers`, held together by us.

Source: Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection",
sections 4.1 and 4.2 and appendix A.4.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrDecoderLayer,
    DeformableDetrEncoder,
    DeformableDetrEncoderLayer,
    DeformableDetrMLPPredictionHead,
    DeformableDetrMultiscaleDeformableAttention,
    DeformableDetrSinePositionEmbedding,
)

from detdistill.boxes import from_centers
from detdistill.detectors.head import RARE
from detdistill.detectors.query_architecture import QueryArchitecture
from detdistill.structures import EncoderTrace, Levels, QueryPredictions

BOX_LAYERS = 3
SMALL_BOX = -2.0
"""What a fresh box branch says of width and height, before the sigmoid."""


class EncoderLayer(DeformableDetrEncoderLayer):  # type: ignore[misc]
    """A layer that does not look whether its output is finite, for which a device is waited for."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        spatial_position_embeddings: Tensor,
        **geometry: Any,  # noqa: ANN401 - passed on as they are
    ) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        attended, _ = self.self_attn(
            hidden_states=hidden_states,
            attention_mask=attention_mask,
            encoder_hidden_states=hidden_states,
            position_embeddings=spatial_position_embeddings,
            **geometry,
        )
        attended = F.dropout(attended, self.dropout, training=self.training)
        hidden_states = self.self_attn_layer_norm(hidden_states + attended)
        output: Tensor = self.final_layer_norm(hidden_states + self.mlp(hidden_states))
        return output


class Encoder(nn.Module):
    """Every cell of every level looks at a few places around it on all levels."""

    def __init__(self, architecture: QueryArchitecture) -> None:
        super().__init__()
        config, channels = _config(architecture), architecture.neck_channels
        self.layers = nn.ModuleList(
            EncoderLayer(config) for _ in range(architecture.encoder_layers)
        )
        self.position = DeformableDetrSinePositionEmbedding(channels // 2, normalize=True)
        self.level_embed = nn.Parameter(torch.randn(len(architecture.strides), channels))
        _initialise(self)

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
        geometry, memory = _geometry(cells), cells.memory
        points = DeformableDetrEncoder.get_reference_points(
            cells.shapes, cells.valid_ratios, memory.device
        )
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


class Decoder(nn.Module):
    """Queries that look at an encoder's memory, each for one object, layer after layer."""

    def __init__(self, architecture: QueryArchitecture) -> None:
        super().__init__()
        config, channels = _config(architecture), architecture.neck_channels
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
        _initialise(self)
        self._initialise_branches()

    def resume(self, trace: EncoderTrace) -> QueryPredictions:
        """What every layer says of a memory, first to last; one branch speaks for all or each own.

        With refinement, a layer looks around the box that the one before has found.
        """
        position, hidden = self.queries.weight.repeat(len(trace.memory), 1, 1).chunk(2, dim=-1)
        points = self.reference_points(position).float().sigmoid()
        geometry = _geometry(trace)
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
            boxes.append(from_centers(found) * _scale(trace.sizes))
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


def _config(architecture: QueryArchitecture) -> DeformableDetrConfig:
    """The settings of a layer in the words of `transformers`."""
    heads, dropout = architecture.heads, architecture.dropout
    return DeformableDetrConfig(
        attn_implementation="sdpa",
        d_model=architecture.neck_channels,
        num_feature_levels=len(architecture.strides),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_n_points=architecture.points,
        decoder_n_points=architecture.points,
        encoder_ffn_dim=architecture.hidden_channels,
        decoder_ffn_dim=architecture.hidden_channels,
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
    )


def _initialise(module: nn.Module) -> None:
    """As published: Xavier for what mixes channels, a star of places for what looks around."""
    for layer in module.get_submodule("layers").modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    for layer in module.modules():
        if isinstance(layer, DeformableDetrMultiscaleDeformableAttention):
            _look_around(layer)


@torch.no_grad()
def _look_around(attention: Any) -> None:  # noqa: ANN401 - of a package without types
    """Head i looks in direction i, at as many cells' distance as the number of the place says."""
    angles = torch.arange(attention.n_heads) * (2 * math.pi / attention.n_heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions / directions.abs().amax(dim=-1, keepdim=True)
    distances = torch.arange(1, attention.n_points + 1).view(-1, 1)
    star = (directions.view(-1, 1, 1, 2) * distances).expand(-1, attention.n_levels, -1, -1)
    attention.sampling_offsets.bias.copy_(star.flatten())
    for weight in (attention.sampling_offsets.weight, attention.attention_weights.weight):
        nn.init.zeros_(weight)


def _shrunk(inside: Tensor, level: Tensor) -> Tensor:
    """(B, height, width) of pixels -> (B, H, W) of a level's cells, by their nearest pixel."""
    return F.interpolate(inside.unsqueeze(0).float(), level.shape[-2:])[0].bool()


def _valid_ratio(mask: Tensor) -> Tensor:
    """(B, H, W) -> (B, 2) share of the width and of the height that is not padding."""
    return torch.stack([mask[:, 0].float().mean(dim=1), mask[:, :, 0].float().mean(dim=1)], dim=-1)


def _geometry(trace: EncoderTrace) -> dict[str, Any]:
    """The shapes of the levels as a list and as a tensor, made without a copy from the host."""
    numbers = [
        torch.full((), side, device=trace.memory.device) for shape in trace.shapes for side in shape
    ]
    return {
        "spatial_shapes": torch.stack(numbers).view(-1, 2),
        "spatial_shapes_list": trace.shapes,
    }


def _on_levels(points: Tensor, valid_ratios: Tensor) -> Tensor:
    """Points or boxes (B, Q, 2 or 4) of images -> (B, Q, L, 2 or 4) of padded levels."""
    ratios = valid_ratios.repeat(1, 1, points.shape[-1] // 2)
    return points.unsqueeze(2) * ratios.unsqueeze(1)


def _moved(points: Tensor, raw: Tensor) -> Tensor:
    """Boxes (B, Q, 4) as centre and extent from 0 to 1: points or boxes moved before a sigmoid."""
    known = points.logit(eps=1e-5)
    return (raw.float() + F.pad(known, (0, 4 - known.shape[-1]))).sigmoid()


def _scale(sizes: Tensor) -> Tensor:
    """(B, 2) heights and widths -> (B, 1, 4) what boxes from 0 to 1 are multiplied with."""
    return sizes.flip(-1).repeat(1, 2).unsqueeze(1)
