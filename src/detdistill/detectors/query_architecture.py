"""What a query detector is made of, as plain values: all but its weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from detdistill.detectors.architecture import Preprocessing
from detdistill.detectors.backbones import Backbone


@dataclass(frozen=True, kw_only=True)
class QueryArchitecture:
    """All that is needed to build a Deformable DETR again, but for its weights."""

    family: str
    backbone: Backbone
    classes: tuple[str, ...]
    neck_channels: int = 256
    extra_levels: int = 1
    """Levels that are made from the backbone's last one."""
    norm_groups: int = 32
    """Groups of the neck's GroupNorm."""
    neck_bias: bool = False
    """Whether the neck's convolutions have a bias: the authors' have, MMDetection's have not."""
    heads: int = 8
    """Of every attention."""
    points: int = 4
    """Places on each level that a head looks at."""
    hidden_channels: int = 1024
    """Width inside the two-layer networks of encoder and decoder."""
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    queries: int = 300
    refine: bool = False
    """Whether a decoder layer starts from the boxes of the one before, with branches of its own."""
    per_image: int = 100
    """Detections."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level, fine to coarse."""
        read = [2 ** (stage + 1) for stage in self.backbone.stages]
        return (*read, *(read[-1] * 2 ** (i + 1) for i in range(self.extra_levels)))
