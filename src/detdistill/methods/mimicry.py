"""What CrossKD and plain prediction mimicking share: how far predictions lie from the teacher's.

They differ in whose predictions these are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor

from detdistill import boxes, losses
from detdistill.methods.method import Method
from detdistill.structures import DensePredictions, Spec, Step


class Published(NamedTuple):
    """The released settings of one kind of head."""

    cls_weight: float
    box_weight: float
    after: int
    """Tower blocks of the teacher that follow the cut."""


DISTRIBUTIONS = Published(1.0, 4.0, after=1)
ANCHORS = Published(1.0, 1.0, after=1)
DISTANCES = Published(0.4, 0.75, after=2)


def published(spec: Spec) -> Published:
    """GFL's, FCOS's, or ATSS's and RetinaNet's settings."""
    if spec.bins is not None:
        return DISTRIBUTIONS
    return DISTANCES if isinstance(spec.coder, boxes.DistanceCoder) else ANCHORS


class Mimicry(Method):
    """Distance of predictions from the teacher's, with CrossKD's distances and divisors."""

    families: ClassVar[tuple[str, ...]] = ("dense",)

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
    floor: float = 1.0
    """Least sum of centerness that FCOS's terms are divided by; released: 1e-6."""

    def compare(self, spec: Spec) -> None:
        """Chooses distances and weights; `spec` is of the head whose predictions are compared."""
        self.kind = kind = published(spec)
        self.bins = spec.bins
        self.background = len(spec.classes)
        self.weights = (
            kind.cls_weight if self.cls_weight is None else self.cls_weight,
            kind.box_weight if self.box_weight is None else self.box_weight,
        )

    @abstractmethod
    def predicted(self, step: Step) -> DensePredictions:
        """What is compared with the teacher's predictions."""

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`cls`, `box`, and `centerness` for heads that have it beside anchors."""
        said, divisor = self.predicted(step), self.divisor(step)
        terms = {
            "cls": self.weights[0] * self._cls_term(said, step, divisor),
            "box": self.weights[1] * self._box_term(said, step, divisor),
        }
        if self.kind is ANCHORS and said.quality and step.teacher.dense.quality:
            term = self._centerness_term(said, step, divisor)
            terms["centerness"] = self.centerness_weight * term
        return terms

    def divisor(self, step: Step) -> Tensor:
        """The positives; for FCOS, the sum of their centerness."""
        if self.kind is not DISTANCES:
            return step.targets.positives
        targets, priors = step.targets, step.student.dense.flat_priors()
        central = boxes.centerness(boxes.centers(priors), targets.boxes)
        total = (central * (targets.labels < self.background)).sum()
        return step.world_mean(total).clamp(min=self.floor)

    def confidence(self, step: Step) -> Tensor:
        """(B, N) the teacher's best class probability, 0 where a prior is ignored."""
        best = losses.precise(step.teacher.dense.flat_logits()).amax(dim=-1)
        return best.sigmoid() * (step.targets.weights > 0)

    def _cls_term(self, said: DensePredictions, step: Step, divisor: Tensor) -> Tensor:
        target = losses.precise(step.teacher.dense.flat_logits()).sigmoid()
        loss = losses.soft_focal_loss(said.flat_logits(), target, self.beta).sum(dim=-1)
        return losses.weighted_mean(loss, step.targets.weights, divisor)

    def _box_term(self, said: DensePredictions, step: Step, divisor: Tensor) -> Tensor:
        """Over the teacher's confidence for distributions, over the positives for boxes."""
        teacher, confidence = step.teacher.dense, self.confidence(step)
        if self.bins is None:
            distance = losses.log_iou_loss if self.kind is DISTANCES else losses.giou_loss
            loss = distance(said.decoded(), teacher.decoded())
            return losses.weighted_mean(loss, confidence, divisor)
        edges = losses.kl_divergence(
            said.flat_boxes().unflatten(-1, (4, self.bins)),
            teacher.flat_boxes().unflatten(-1, (4, self.bins)),
            self.temperature,
        )
        total = step.world_mean(confidence.sum()).clamp(min=losses.EPS)
        return (edges.mean(dim=-1) * confidence).sum() / total

    def _centerness_term(self, said: DensePredictions, step: Step, divisor: Tensor) -> Tensor:
        """On the student's positives."""
        target = losses.precise(step.teacher.dense.flat_quality()).sigmoid()
        positive = step.targets.labels < self.background
        loss = losses.soft_bce(said.flat_quality(), target)
        return losses.weighted_mean(loss, positive, divisor)
