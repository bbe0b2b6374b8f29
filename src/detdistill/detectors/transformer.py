"""The layers of Deformable DETR, which are those of `transformers`: settings, starts, geometry.

Source: Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection",
section 4.1 and appendix A.4.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrEncoderLayer,
    DeformableDetrMultiscaleDeformableAttention,
)

from detdistill.detectors.query_architecture import QueryArchitecture
from detdistill.structures import EncoderTrace


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


def config_of(architecture: QueryArchitecture) -> DeformableDetrConfig:
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


def geometry_of(trace: EncoderTrace) -> dict[str, Any]:
    """The shapes of the levels as a list and as a tensor, made without a copy from the host."""
    numbers = [
        torch.full((), side, device=trace.memory.device) for shape in trace.shapes for side in shape
    ]
    return {
        "spatial_shapes": torch.stack(numbers).view(-1, 2),
        "spatial_shapes_list": trace.shapes,
    }


def start(layers: nn.ModuleList) -> None:
    """As published: Xavier for what mixes channels, a star of places for what looks around."""
    for layer in layers.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    for layer in layers.modules():
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
