"""CrossKD: the student's head features go through the rest of the teacher's head.

What comes out should equal the teacher's predictions; the student's own last layers learn from the
labels alone, so that the two do not pull at each other.

Paper: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024
    (arXiv 2306.11369).
Reads: the teacher's predictions, the head towers of both at one cut, the label assignment.
Differs: as in the released code, not the paper, the student's features are first given the
    teacher's mean and deviation per channel, and stand after the activation. All normalisers are
    means over ranks, and finite in batches without positives: FCOS's has a floor of 1 (released:
    1e-6, a loss of millions) and the sum of the teacher's confidence one of 2^-23. The
    statistics of one-element maps are finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from detdistill import boxes, losses
from detdistill.methods.method import Method
from detdistill.methods.pair import same_classes, same_strides, same_towers
from detdistill.structures import DensePredictions, Levels, Reads, Spec, Step, Towers


class _Published(NamedTuple):
    """The released settings of one kind of head."""

    cls_weight: float
    box_weight: float
    after: int
    """Tower blocks of the teacher that follow the cut."""


_DISTRIBUTIONS = _Published(1.0, 4.0, after=1)
_ANCHORS = _Published(1.0, 1.0, after=1)
_DISTANCES = _Published(0.4, 0.75, after=2)


def _published(spec: Spec) -> _Published:
    """GFL's, FCOS's, or ATSS's and RetinaNet's settings."""
    if spec.bins is not None:
        return _DISTRIBUTIONS
    return _DISTANCES if isinstance(spec.coder, boxes.DistanceCoder) else _ANCHORS


class CrossKD(Method):
    """Distance of the cross-head predictions from the teacher's."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "crossed predictions"
    citation: ClassVar[str] = """@inproceedings{wang2024crosskd,
  title = {{CrossKD}: Cross-Head Knowledge Distillation for Object Detection},
  author = {Wang, Jiabao and Chen, Yuming and Zheng, Zhaohui and Li, Xiang and Cheng, Ming-Ming
            and Hou, Qibin},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2024},
}"""

    cut: int | None = None
    """Blocks of the student's tower before the crossing, 0 crosses at the neck. None for the
    released choice: all but the last block, in FCOS all but two."""
    cls_weight: float | None = None
    """None for the released one: 1, in FCOS 0.4."""
    box_weight: float | None = None
    """None for the released one: 4 for distributions (KL), 1 for anchors (GIoU), 0.75 in FCOS
    (log IoU)."""
    centerness_weight: float = 1.0
    """Of the centerness of anchor-based heads (ATSS), on positives."""
    beta: float = 1.0
    """Exponent of the class term's distance."""
    temperature: float = 1.0
    """Of box distributions."""
    align: bool = True
    """Give the student's features the teacher's mean and deviation."""
    preactivation: bool = False
    """Cross before the activation, as the released source reads but does not run."""
    floor: float = 1.0
    """Least sum of centerness that FCOS's terms are divided by; released: 1e-6."""

    @property
    def reads(self) -> Reads:
        """One cut of the towers, the teacher's predictions, the assignment."""
        return Reads(
            predictions=True,
            targets=True,
            towers=frozenset({self.start}),
            preactivation=self.preactivation,
        )

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs heads with towers of one width, on the same priors and classes."""
        same_strides("crosskd", teacher, student)
        same_classes("crosskd", teacher, student)
        published = _published(teacher)
        depth = min(teacher.tower_depth, student.tower_depth)
        self.start = max(depth - published.after, 0) if self.cut is None else self.cut
        same_towers("crosskd", self.start, teacher, student)
        self.kind = published
        self.bins = teacher.bins
        self.background = len(student.classes)
        self.weights = (
            published.cls_weight if self.cls_weight is None else self.cls_weight,
            published.box_weight if self.box_weight is None else self.box_weight,
        )

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`cls`, `box`, and `centerness` for heads that have it beside anchors."""
        crossed, divisor = self.cross(step), self.divisor(step)
        terms = {
            "cls": self.weights[0] * self._cls_term(crossed, step, divisor),
            "box": self.weights[1] * self._box_term(crossed, step, divisor),
        }
        if self.kind is _ANCHORS and crossed.quality is not None:
            term = self._centerness_term(crossed, step, divisor)
            terms["centerness"] = self.centerness_weight * term
        return terms

    def cross(self, step: Step) -> DensePredictions:
        """What the teacher's head makes of the student's features."""
        student, teacher = step.student.towers, step.teacher.towers
        towers = Towers(
            cls={self.start: self.held(student.cls[self.start], teacher.cls[self.start])},
            reg={self.start: self.held(student.reg[self.start], teacher.reg[self.start])},
        )
        return step.teacher_head.resume(towers, start=self.start)

    def held(self, student: Levels, teacher: Levels) -> Levels:
        """The student's features of one branch as they enter the teacher's layers."""
        if self.align:
            student = tuple(map(losses.with_statistics_of, student, teacher))
        return student if self.start == 0 else tuple(map(F.relu, student))

    def divisor(self, step: Step) -> Tensor:
        """The positives; for FCOS, the sum of their centerness."""
        if self.kind is not _DISTANCES:
            return step.targets.positives
        targets, priors = step.targets, step.student.dense.flat_priors()
        central = boxes.centerness(boxes.centers(priors), targets.boxes)
        total = (central * (targets.labels < self.background)).sum()
        return step.world_mean(total).clamp(min=self.floor)

    def confidence(self, step: Step) -> Tensor:
        """(B, N) the teacher's best class probability, 0 where a prior is ignored."""
        best = losses.precise(step.teacher.dense.flat_logits()).amax(dim=-1)
        return best.sigmoid() * (step.targets.weights > 0)

    def _cls_term(self, crossed: DensePredictions, step: Step, divisor: Tensor) -> Tensor:
        target = losses.precise(step.teacher.dense.flat_logits()).sigmoid()
        loss = losses.soft_focal_loss(crossed.flat_logits(), target, self.beta).sum(dim=-1)
        return losses.weighted_mean(loss, step.targets.weights, divisor)

    def _box_term(self, crossed: DensePredictions, step: Step, divisor: Tensor) -> Tensor:
        """Over the teacher's confidence for distributions, over the positives for boxes."""
        teacher, confidence = step.teacher.dense, self.confidence(step)
        if self.bins is None:
            distance = losses.log_iou_loss if self.kind is _DISTANCES else losses.giou_loss
            loss = distance(crossed.decoded(), teacher.decoded())
            return losses.weighted_mean(loss, confidence, divisor)
        edges = losses.kl_divergence(
            crossed.flat_boxes().unflatten(-1, (4, self.bins)),
            teacher.flat_boxes().unflatten(-1, (4, self.bins)),
            self.temperature,
        )
        total = step.world_mean(confidence.sum()).clamp(min=losses.EPS)
        return (edges.mean(dim=-1) * confidence).sum() / total

    def _centerness_term(self, crossed: DensePredictions, step: Step, divisor: Tensor) -> Tensor:
        """On the student's positives."""
        target = losses.precise(step.teacher.dense.flat_quality()).sigmoid()
        positive = step.targets.labels < self.background
        loss = losses.soft_bce(crossed.flat_quality(), target)
        return losses.weighted_mean(loss, positive, divisor)
