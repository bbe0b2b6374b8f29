"""What a two-stage detector is made of, as plain values: all but its weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from detdistill.detectors.architecture import Preprocessing
from detdistill.detectors.backbones import Backbone


@dataclass(frozen=True, kw_only=True)
class Proposing:
    """Which boxes of the first stage become proposals."""

    per_level: int = 1000
    """Candidates that are kept on each level before NMS."""
    nms_iou: float = 0.7
    """Boxes of different levels do not suppress each other."""
    per_image: int = 1000


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """On how many priors or regions of an image a stage is trained."""

    number: int
    positive_share: float
    """At most; background fills up what is left."""


@dataclass(frozen=True, kw_only=True)
class RegionSelection:
    """Which classified regions become detections."""

    min_score: float = 0.05
    nms_iou: float = 0.5
    per_image: int = 100


@dataclass(frozen=True, kw_only=True)
class RegionArchitecture:
    """All that is needed to build a two-stage detector again, but for its weights."""

    family: str = "faster_rcnn"
    backbone: Backbone
    classes: tuple[str, ...]
    neck_channels: int = 256
    subsampled_level: bool = True
    """Whether the pyramid's last level, subsampled, is one more level for the first stage."""
    anchor_scale: float = 8.0
    """Side of the square anchor in units of the stride."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of a cell's anchors."""
    whole_pixels: bool = False
    """Whether anchors and the steps between them are whole pixels; see `Architecture`."""
    train_proposals: Proposing = Proposing(per_level=2000)
    test_proposals: Proposing = Proposing()
    anchor_sampling: Sampling = Sampling(number=256, positive_share=0.5)
    region_sampling: Sampling = Sampling(number=512, positive_share=0.25)
    pool_size: int = 7
    """Cells per side of a region's features."""
    pool_samples: int = 0
    """Places per side of such a cell that are averaged; 0 for as many as it has pixels."""
    pool_shifted: bool = True
    """Whether a region's edges are taken half a cell of the map to the left, where its pixels'
    corners are; torchvision's detectors do not."""
    finest_scale: float = 56.0
    """Regions whose geometric mean side is below twice this are pooled from the finest level,
    those below four times this from the next, and so on."""
    hidden_channels: int = 1024
    """Width of the second stage's two layers."""
    head_deviation: float = 0.01
    """Standard deviation that the first stage's convolutions start from."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    selection: RegionSelection = RegionSelection()

    @property
    def pooled_strides(self) -> tuple[int, ...]:
        """Pixels per cell of the levels that regions are pooled from, fine to coarse."""
        return tuple(2 ** (stage + 1) for stage in self.backbone.stages)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level."""
        pooled = self.pooled_strides
        return (*pooled, 2 * pooled[-1]) if self.subsampled_level else pooled
