"""What detectors are made of, as plain values: all but their weights."""

from __future__ import annotations

from dataclasses import Field, dataclass
from typing import Any, ClassVar, Literal, Protocol

from detdistill.detectors.backbones.features import Backbone
from detdistill.detectors.backbones.timm_models import statistics

Branch = Literal["cls", "reg"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a detector normalises what it is given: RGB from 0 to 255."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Both in the detector's own channel order."""
    bgr: bool = False


CAFFE = Preprocessing(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), bgr=True)
"""What the ResNets of Detectron were trained with."""


class AnyArchitecture(Protocol):
    """What the architectures of all families share; each is a frozen dataclass of plain values."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def family(self) -> str:
        """Under which it is listed in the presets."""

    @property
    def backbone(self) -> Backbone:
        """The feature extractor."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the class numbers."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are normalised."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which predictions become detections."""

    min_score: float = 0.05
    """Of the class alone, before centerness is multiplied in."""
    per_level: int = 1000
    """Candidates that are kept on each level before NMS."""
    nms_iou: float = 0.6
    per_image: int = 100
    joint: bool = False
    """Whether the score is the geometric mean of class and centerness from the start, as
    torchvision has it, instead of their product once candidates have been chosen."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """What only FCOS has to decide: which points learn an object, and how they say its edges."""

    limits: tuple[float, ...] = (64.0, 128.0, 256.0, 512.0)
    """Farthest edge, in pixels, of what each level learns; the last level has no limit."""
    radius: float | None = None
    """Only points this many strides around an object's centre learn it; None: all inside it."""
    in_strides: bool = False
    """Distances are a linear multiple of the stride instead of exponential in pixels."""
    box_loss: Literal["iou", "giou"] = "iou"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """All that is needed to build a dense detector again, but for its weights."""

    family: str
    backbone: Backbone
    classes: tuple[str, ...]
    neck_channels: int = 256
    extra_levels: int = 2
    extra_from: Literal["output", "backbone"] = "output"
    """What the first extra level is made from: the pyramid's last level, or the backbone's."""
    extra_relu: bool = False
    """Whether a ReLU stands before each extra level but the first."""
    tower_channels: int = 256
    tower_depth: int = 4
    tower_bias: bool = False
    """Whether the towers' convolutions have a bias beside their norm; without norm they do."""
    norm_groups: int = 32
    """Groups of the towers' GroupNorm; 0 for no norm."""
    level_scales: bool = True
    """Whether the box branch has a learned factor per level."""
    quality_on: Branch | None = None
    """The tower from which centerness is predicted; None for no centerness."""
    reg_max: int = 16
    """Largest distance a box distribution can say, in units of the stride."""
    anchor_scale: float = 8.0
    """Side of the smallest square anchor in units of the stride; 0 makes it a point."""
    anchor_octaves: int = 1
    """Anchor sizes per level, which divide an octave evenly."""
    anchor_ratios: tuple[float, ...] = (1.0,)
    """Height over width of the anchors of each size."""
    anchor_offset: float = 0.0
    """Where in its cell an anchor is centred: 0 the corner, 0.5 the middle."""
    whole_pixels: bool = False
    """Whether sides and corners of anchors, and the steps between them, are whole pixels, as
    torchvision has it: a step is the image's length over the map's."""
    points: Points = Points()
    head_deviation: float = 0.01
    """Standard deviation that the head's convolutions start from."""
    preprocessing: Preprocessing = Preprocessing()
    selection: Selection = Selection()

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level, fine to coarse."""
        read = [2 ** (stage + 1) for stage in self.backbone.stages]
        return (*read, *(read[-1] * 2 ** (i + 1) for i in range(self.extra_levels)))

    @property
    def priors_per_cell(self) -> int:
        """A: sizes times shapes of anchors."""
        return self.anchor_octaves * len(self.anchor_ratios)


def preprocessing_of(backbone: Backbone) -> Preprocessing:
    """The statistics that a backbone's pretrained weights expect.

    Raises:
        UserError: the backbone is a timm model that does not exist.
    """
    if backbone.style == "caffe":
        return CAFFE
    if backbone.name.startswith("timm/"):
        mean, std = statistics(backbone)
        return Preprocessing(mean=mean, std=std)
    return Preprocessing()
