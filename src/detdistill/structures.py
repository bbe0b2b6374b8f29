"""What passes between the parts: truth, outputs, targets, one training step, detections.

What computes with them lives elsewhere: `levels` lays their maps flat, losses are in `losses`,
selections in `masks`.

Shape letters: B images, G padded objects, K classes, A priors per cell, L levels, H and W cells,
N = all priors of an image (level by level, row by row, priors of a cell innermost),
R = numbers per box as a head emits them, P padded regions, Q object queries, S cells of all levels
of an encoder, D padded detections. Boxes are xyxy in input pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from detdistill.levels import Levels, flatten, within

Structure = TypeVar("Structure")
Side = TypeVar("Side", int, Tensor)


def _structure(cls: type[Structure]) -> type[Structure]:
    """Registers a dataclass as a pytree, so that tensors in it are seen by DDP and compile."""
    pytree.register_dataclass(cls)
    return cls


class BoxCoder(Protocol):
    """Turns the numbers of a box branch into boxes and back."""

    @property
    def numbers(self) -> int:
        """R: how many numbers the branch emits for a box."""

    def decode(self, raw: Tensor, priors: Tensor, stride: Tensor) -> Tensor:
        """Raw (..., R), priors (..., 4), stride (...) -> boxes (..., 4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What is known of a detector before the first batch; adapters are built from two of these."""

    family: str
    """`dense`, `region` or `query`: which predictions it makes."""
    classes: tuple[str, ...]
    strides: tuple[int, ...]
    channels: int
    """Width of every neck level."""
    tower_depth: int = 0
    """Convolutions per head branch; a trace can be cut at 0 (the neck) to this."""
    tower_channels: int = 0
    priors_per_cell: int = 1
    coder: BoxCoder | None = None
    bins: int | None = None
    """Bins of a box edge's distribution, None for detectors that regress numbers."""
    quality: bool = False
    """Whether the head has a centerness branch."""
    backbone_channels: tuple[int, ...] = ()
    pool_size: int = 0
    """Cells per side of a region's features in a two-stage detector."""
    queries: int = 0
    """Q of a query detector."""
    stages: int = 0
    """Layers of a query detector's decoder, each of which predicts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reads:
    """What a method reads beside the student's neck; nothing else is kept or computed.

    The union of two is `a | b`.
    """

    neck: bool = True
    """The teacher's neck, which is computed in any case, but kept only if it is read."""
    predictions: bool = False
    """The teacher's predictions. (The student's are always there, for its own losses.)"""
    targets: bool = False
    """The student's label assignment."""
    towers: frozenset[int] = frozenset()
    """Cuts of the head towers of both detectors; see `Towers`."""
    preactivation: bool = False
    """The towers before their activation instead of after it."""
    encoder: bool = False
    """The encoder's memory of both detectors; see `EncoderTrace`."""
    backbone: bool = False
    head: bool = False
    """The teacher's head is entered again, at other features or boxes; for that, nothing more is
    kept or computed."""

    def __or__(self, other: Reads) -> Reads:
        """What either reads; so a neck stays unread only if both say so."""
        return Reads(
            neck=self.neck or other.neck,
            predictions=self.predictions or other.predictions,
            targets=self.targets or other.targets,
            towers=self.towers | other.towers,
            preactivation=self.preactivation or other.preactivation,
            encoder=self.encoder or other.encoder,
            backbone=self.backbone or other.backbone,
            head=self.head or other.head,
        )


PREDICTIONS = Reads(predictions=True)
EVERYTHING = Reads(predictions=True, targets=True)
"""What a detector computes when nobody says otherwise: neck and predictions."""


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """The objects of a batch, padded to the fullest image, so that nothing loops over images."""

    boxes: Tensor
    """(B, G, 4)."""
    labels: Tensor
    """(B, G) class numbers; anything where not valid."""
    valid: Tensor
    """(B, G) bool: a real, trainable object. Padding and crowd regions are not."""
    crowd: Tensor
    """(B, G) bool: a region to ignore."""
    sizes: Tensor
    """(B, 2) height and width in pixels of each image before padding."""


PAD_MULTIPLE = 32
"""Heights and widths of batches are multiples of this, the coarsest stride of a backbone; cells up
to the next multiple of an image's size belong to the image."""


def padded_up(side: Side) -> Side:
    """The next multiple."""
    return -(-side // PAD_MULTIPLE) * PAD_MULTIPLE


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Images and their truth as a data loader yields them."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB, padded at the right and the bottom to multiples of `PAD_MULTIPLE`."""
    truth: Truth
    ids: Tensor
    """(B,) id of each image in its data set's ground truth."""


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class Towers:
    """Features inside a dense head, from which it can resume.

    `cls[i]` is the output of convolution block i of the classification branch, `cls[0]` the neck
    itself; likewise `reg`. Entries stand **after** the activation, unless `Reads.preactivation`
    asked for what enters it. Only the cuts that were asked for are there.
    """

    cls: Mapping[int, Levels]
    reg: Mapping[int, Levels]


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class DensePredictions:
    """What GFL, ATSS, RetinaNet and FCOS say of every prior, before any sigmoid or decoding."""

    logits: Levels
    """(B, A·K, H, W)."""
    boxes: Levels
    """(B, A·R, H, W), to be read by `coder`."""
    quality: Levels | None = None
    """(B, A, H, W) centerness logits."""
    priors: Levels
    """(H·W·A, 4) anchors, or points as boxes without extent."""
    strides: tuple[int, ...]
    coder: BoxCoder

    def flat_logits(self) -> Tensor:
        """(B, N, K)."""
        return flatten(self.logits, self.priors)

    def probabilities(self) -> Tensor:
        """(B, N, K) of the classes, each for itself; at least float32."""
        return _precise(self.flat_logits()).sigmoid()

    def flat_boxes(self) -> Tensor:
        """(B, N, R), as emitted."""
        return flatten(self.boxes, self.priors)

    def flat_quality(self) -> Tensor:
        """(B, N), for heads that have it."""
        if self.quality is None:
            raise LookupError("this head has no centerness branch: see Spec.quality")
        return flatten(self.quality, self.priors).squeeze(-1)

    def flat_priors(self) -> Tensor:
        """(N, 4)."""
        return torch.cat(self.priors)

    def flat_strides(self) -> Tensor:
        """(N,) stride of each prior's level, in the dtype of the priors."""
        return torch.cat(
            [
                prior.new_full(prior.shape[:1], stride)
                for prior, stride in zip(self.priors, self.strides, strict=True)
            ]
        )

    def inside(self, sizes: Tensor) -> Tensor:
        """(B, N) whether each prior's cell lies in its image.

        Args:
            sizes: (B, 2) heights and widths, which are rounded up as batches are padded.
        """
        inside = []
        for level, stride, prior in zip(self.logits, self.strides, self.priors, strict=True):
            shape = level.shape[-2:]
            cells = within(-(-padded_up(sizes) // stride), shape).flatten(1)
            inside.append(cells.repeat_interleave(len(prior) // cells.shape[1], dim=1))
        return torch.cat(inside, dim=1)

    def decoded(self) -> Tensor:
        """(B, N, 4) boxes in pixels; at least float32 whatever the head computed in."""
        raw = _precise(self.flat_boxes())
        return self.coder.decode(raw, self.flat_priors(), self.flat_strides())


def _precise(numbers: Tensor) -> Tensor:
    """At least in float32."""
    return numbers if numbers.dtype == torch.float64 else numbers.float()


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class Proposals:
    """Regions of images in which a second stage looks for an object."""

    boxes: Tensor
    """(B, P, 4), without gradient."""
    valid: Tensor
    """(B, P) bool: a region, not padding."""


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class RegionPredictions:
    """What the first stage of Faster R-CNN says; its second is asked by `RegionHead.classify`."""

    rpn: DensePredictions
    """Object or not, one class, for every anchor."""
    proposals: Proposals
    """The best of these boxes after NMS, best first."""


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class RegionScores:
    """What the second stage of Faster R-CNN says of given regions."""

    logits: Tensor
    """(B, P, K + 1) for a softmax; the last is background."""
    boxes: Tensor
    """(B, P, K, R) for every class, to be read by `coder` with the region as prior."""
    proposals: Proposals
    coder: BoxCoder

    def decoded(self) -> Tensor:
        """(B, P, K, 4) boxes in pixels, at least float32."""
        regions = self.proposals.boxes.unsqueeze(2)
        return self.coder.decode(_precise(self.boxes), regions, torch.ones_like(regions[..., 0]))


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class RegionTrace:
    """What the second stage looks at, from which it can resume."""

    features: Tensor
    """(B, P, C, size, size) pooled from the neck, before any layer of the second stage."""
    proposals: Proposals


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class QueryPredictions:
    """What every stage of Deformable DETR's decoder says, first to last, before any sigmoid."""

    logits: tuple[Tensor, ...]
    """(B, Q, K) per stage."""
    boxes: tuple[Tensor, ...]
    """(B, Q, 4) per stage, xyxy in pixels, at least float32."""


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderTrace:
    """What the decoder of Deformable DETR looks at, from which it can resume."""

    memory: Tensor
    """(B, S, C) of the last encoder layer, level by level, row by row."""
    shapes: tuple[tuple[int, int], ...]
    """Height and width of each level."""
    valid_ratios: Tensor
    """(B, L, 2) share of each level's width and height that is not padding."""
    padding: Tensor
    """(B, S) bool: a cell of the padding."""
    sizes: Tensor
    """(B, 2) height and width in pixels that boxes from 0 to 1 are multiplied with."""


Predictions = DensePredictions | RegionPredictions | QueryPredictions


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorOutput:
    """Everything one detector said of a batch."""

    neck: Levels
    """Empty where it is a teacher's and `Reads.neck` says that nobody reads it."""
    predictions: Predictions | None = None
    trace: Towers | EncoderTrace | None = None
    backbone: Levels | None = None

    @property
    def dense(self) -> DensePredictions:
        """One-stage predictions, or the first stage's of a two-stage detector."""
        if isinstance(self.predictions, RegionPredictions):
            return self.predictions.rpn
        return _asked(self.predictions, DensePredictions, "predictions=True")

    @property
    def regions(self) -> RegionPredictions:
        """Two-stage predictions."""
        return _asked(self.predictions, RegionPredictions, "predictions=True")

    @property
    def queries(self) -> QueryPredictions:
        """Query predictions."""
        return _asked(self.predictions, QueryPredictions, "predictions=True")

    @property
    def towers(self) -> Towers:
        """The trace of a dense head, with the cuts that were asked for."""
        return _asked(self.trace, Towers, "towers=...")

    @property
    def encoder(self) -> EncoderTrace:
        """The trace of a query detector."""
        return _asked(self.trace, EncoderTrace, "encoder=True")


Part = TypeVar("Part")


def _asked(part: object, kind: type[Part], reads: str) -> Part:
    """What is there because it was asked for, and is of the kind that the family makes."""
    if isinstance(part, kind):
        return part
    found = "nothing" if part is None else type(part).__name__
    raise LookupError(f"{found} is there, not {kind.__name__}: declare Reads({reads})")


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class Regions:
    """The regions on which a two-stage student is trained, and what it said of them."""

    trace: RegionTrace
    """The regions, sampled from the proposals and the objects, and their features."""
    scores: RegionScores
    labels: Tensor
    """(B, P) class number, or K for background and padding."""
    boxes: Tensor
    """(B, P, 4) box of the assigned object; zeros for background."""


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class Matches:
    """Which query of a query detector has which object, per stage of its decoder."""

    labels: Tensor
    """(T, B, Q) class number, or K for background; T stages."""
    boxes: Tensor
    """(T, B, Q, 4) box of the matched object; zeros for background."""


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """The student's label assignment, made once per step and shared by all who need it.

    Of a two-stage detector these are its first stage's, where objects are of one class, and
    `regions` has the second's. Of a query detector N is Q, of the last stage.
    """

    labels: Tensor
    """(B, N) class number, or K for background."""
    boxes: Tensor
    """(B, N, 4) box of the assigned object; zeros for background."""
    weights: Tensor
    """(B, N) 1 where the prior counts, 0 where it is ignored or lies in the padding."""
    positives: Tensor
    """() sum over images of max(1, positive priors), mean over ranks: the normaliser. FCOS and
    query detectors: the positive priors of the batch, mean over ranks, at least 1."""
    per_image: bool = True
    """Whether `positives` are at least 1 for each image, not for the batch."""
    rows: Tensor | None = None
    """(B, P) priors among which are all positives; P depends on shapes alone. None: all N."""
    regions: Regions | None = None
    """Of a two-stage detector."""
    matches: Matches | None = None
    """Of a query detector."""


class Head(Protocol):
    """A dense head, which can go on from inside."""

    def resume(self, towers: Towers, *, start: int) -> DensePredictions:
        """Predictions from `towers.cls[start]` and `towers.reg[start]`."""


class RegionHead(Protocol):
    """The second stage of a two-stage detector."""

    def pool(self, neck: Levels, proposals: Proposals) -> RegionTrace:
        """The features of regions."""

    def resume(self, trace: RegionTrace) -> RegionScores:
        """What it says of pooled features."""

    def classify(self, neck: Levels, proposals: Proposals) -> RegionScores:
        """What it says of regions: `pool`, then `resume`."""


class QueryHead(Protocol):
    """The decoder of a query detector."""

    def resume(self, trace: EncoderTrace) -> QueryPredictions:
        """What all its stages say of an encoder's memory."""


AnyHead = Head | RegionHead | QueryHead


def local_mean(value: Tensor) -> Tensor:
    """The mean over ranks where there is one rank."""
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """All that one training step knows: the input of every method.

    Both detectors know the same classes here, in one order, whatever they were trained on.
    """

    truth: Truth
    student: DetectorOutput
    teacher: DetectorOutput
    """Without gradient history."""
    targets: Targets
    student_head: AnyHead
    teacher_head: AnyHead
    """Its parameters are frozen; gradients pass through it to what it is given."""
    index: int = 0
    progress: float = 0.0
    """Share of the training that is done, 0 to 1."""
    world_mean: Callable[[Tensor], Tensor] = field(default=local_mean)
    """Mean of a tensor over ranks, without gradient."""


@_structure
@dataclass(frozen=True, kw_only=True, slots=True)
class Detections:
    """Found objects, best first, padded to the same number in every image."""

    boxes: Tensor
    """(B, D, 4)."""
    scores: Tensor
    """(B, D)."""
    labels: Tensor
    """(B, D)."""
    counts: Tensor
    """(B,) how many of the D are real."""

    def to(self, device: torch.device | str) -> Detections:
        """The same on another device."""
        return Detections(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})
