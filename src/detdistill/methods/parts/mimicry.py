"""What CrossKD and plain prediction mimicking share: how far predictions lie from the teacher's.

They differ in whose predictions these are.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor

from detdistill import boxes, focal, losses
from detdistill.levels import of_class, per_cell
from detdistill.methods.method import Method
from detdistill.methods.parts.pair import HeadKind, kind_of_head, or_published
from detdistill.methods.parts.predictions import edge_divergence
from detdistill.structures import (
    DensePredictions,
    QueryPredictions,
    RegionHead,
    Regions,
    RegionScores,
    Spec,
    Step,
)

Said = DensePredictions | RegionScores | QueryPredictions
"""Predictions that can be compared, of each family."""


class Published(NamedTuple):
    """The released settings of one kind of head."""

    cls_weight: float
    box_weight: float
    after: int = 0
    """Tower blocks of the teacher that follow the cut."""


PUBLISHED: Mapping[HeadKind, Published] = {
    "distributions": Published(1.0, 4.0, after=1),
    "distances": Published(0.4, 0.75, after=2),
    "anchors": Published(1.0, 1.0, after=1),
    "regions": Published(1.0, 1.0),
    "queries": Published(1.0, 1.0),
}
"""For regions and queries, nothing was released."""


def common(one: Spec, other: Spec) -> Spec:
    """The first, without its distributions of edges if the other's have not equally many bins."""
    return dataclasses.replace(one, bins=one.bins if one.bins == other.bins else None)


def sampled(step: Step) -> Regions:
    """The regions on which a two-stage student is trained."""
    if step.targets.regions is None:
        raise LookupError("the student has no second stage: see Spec.family")
    return step.targets.regions


@torch.no_grad()
def own(step: Step) -> Said:
    """What the teacher says; if it has two stages, of the student's regions."""
    if step.targets.regions is not None:
        head = cast("RegionHead", step.teacher_head)
        return head.classify(step.teacher.neck, sampled(step).trace.proposals)
    predictions = step.teacher.predictions
    return predictions if isinstance(predictions, QueryPredictions) else step.teacher.dense


class Comparison(NamedTuple):
    """Predictions of one-stage heads, what they should be, and how much each prior counts."""

    said: DensePredictions
    wanted: DensePredictions
    weight: Tensor
    """(B, N) 0 where a prior is ignored."""
    positive: Tensor
    """(B, N) bool: assigned to an object by the student."""
    divisor: Tensor
    """()."""

    def confidence(self) -> Tensor:
        """(B, N) the best class probability that is wanted, 0 where a prior is ignored."""
        best = losses.precise(self.wanted.flat_logits()).amax(dim=-1)
        return best.sigmoid() * (self.weight > 0)


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
    """Exponent of the class term's distance; 0 makes it plain binary cross entropy."""
    cls_on: Literal["all", "positive", "negative"] = "all"
    """Which priors the class term of one-stage heads counts, by the student's assignment."""
    temperature: float = 1.0
    """Of box distributions."""
    floor: float = 1.0
    """Least sum of centerness that FCOS's terms are divided by; released: 1e-6."""

    def compare(self, spec: Spec) -> None:
        """Chooses distances and weights; `spec` is of the head whose predictions are compared."""
        self.kind = kind_of_head(spec)
        self.bins = spec.bins
        self.background = len(spec.classes)
        cls, box = or_published((self.cls_weight, self.box_weight), PUBLISHED[self.kind][:2])
        self.weights = {"cls": cls, "box": box, "centerness": self.centerness_weight}

    @abstractmethod
    def predicted(self, step: Step) -> Said:
        """What is compared with the teacher's predictions."""

    def compared(self, step: Step) -> tuple[Said, Said]:
        """What learns, and what it learns, which has no history."""
        return self.predicted(step), own(step)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`cls`, `box`, and `centerness` for heads that have it beside anchors."""
        said, wanted = self.compared(step)
        if isinstance(said, RegionScores):
            terms = _of_regions(said, cast("RegionScores", wanted), step)
        elif isinstance(said, QueryPredictions):
            terms = _of_queries(said, cast("QueryPredictions", wanted), step, self.beta)
        else:
            terms = self._of_priors(said, cast("DensePredictions", wanted), step)
        return {name: self.weights[name] * term for name, term in terms.items()}

    def comparison(
        self, said: DensePredictions, wanted: DensePredictions, step: Step
    ) -> Comparison:
        """Predictions, with what the student's assignment says of their priors."""
        mine, targets = step.student.dense, step.targets
        return Comparison(
            said=said,
            wanted=wanted,
            weight=_at_priors_of(said, targets.weights, mine),
            positive=_at_priors_of(said, targets.labels < self.background, mine),
            divisor=self._divisor(step),
        )

    def _divisor(self, step: Step) -> Tensor:
        """The positives; for FCOS, the sum of their centerness."""
        if self.kind != "distances":
            return step.targets.positives
        targets, priors = step.targets, step.student.dense.flat_priors()
        central = boxes.centerness(boxes.centers(priors), targets.boxes)
        total = (central * (targets.labels < self.background)).sum()
        return step.world_mean(total).clamp(min=self.floor)

    def _of_priors(
        self, said: DensePredictions, wanted: DensePredictions, step: Step
    ) -> dict[str, Tensor]:
        comparison = self.comparison(said, wanted, step)
        terms = {"cls": self._cls_term(comparison), "box": self._box_term(comparison, step)}
        if self.kind == "anchors" and said.quality and wanted.quality:
            terms["centerness"] = _centerness_term(comparison)
        return terms

    def _cls_term(self, comparison: Comparison) -> Tensor:
        said, wanted, weight, positive, divisor = comparison
        loss = self.cls_distance(said.flat_logits(), wanted.flat_logits())
        if self.cls_on != "all":
            weight = weight * (positive if self.cls_on == "positive" else ~positive)
        return losses.weighted_mean(loss, weight, divisor)

    def cls_distance(self, logits: Tensor, target: Tensor) -> Tensor:
        """Of class scores from the teacher's: logits (B, N, K) of both -> (B, N)."""
        wanted = losses.precise(target).sigmoid()
        return focal.soft_focal_loss(logits, wanted, self.beta).sum(dim=-1)

    def _box_term(self, comparison: Comparison, step: Step) -> Tensor:
        """Over the teacher's confidence for distributions, over the positives for boxes."""
        said, wanted, confidence = comparison.said, comparison.wanted, comparison.confidence()
        if self.bins is None:
            distance = losses.log_iou_loss if self.kind == "distances" else losses.giou_loss
            loss = distance(said.decoded(), wanted.decoded())
            return losses.weighted_mean(loss, confidence, comparison.divisor)
        edges = edge_divergence(said, wanted, self.bins, self.temperature)
        return losses.mean_over(edges, confidence, step.world_mean, least=losses.LEAST_SUM)


def _centerness_term(comparison: Comparison) -> Tensor:
    """On the student's positives; elsewhere it may be anything, on a level of one cell NaN."""
    target = losses.precise(comparison.wanted.flat_quality()).sigmoid()
    loss = losses.soft_bce(comparison.said.flat_quality(), target)
    return losses.weighted_mean(loss.where(comparison.positive, 0), None, comparison.divisor)


def _at_priors_of(said: DensePredictions, flat: Tensor, mine: DensePredictions) -> Tensor:
    """(B, N) of the student's priors -> (B, N') of the priors of `said`, in the same cells.

    Where a cell has another number of them, each is 1 if any of the student's is not 0.
    """
    count = sum(map(len, said.priors))
    if flat.shape[1] == count:
        return flat
    cells = per_cell(flat > 0, mine.logits).to(flat.dtype)
    return cells.repeat_interleave(count // cells.shape[1], dim=1)


def _of_regions(said: RegionScores, wanted: RegionScores, step: Step) -> dict[str, Tensor]:
    """Divergence of the classes, and GIoU of the box of the class that is surest of an object.

    Both are means over the regions of all images; boxes count by the teacher's confidence.
    """
    cls = losses.kl_divergence(said.logits, wanted.logits)
    confidence, surest = losses.precise(wanted.logits).softmax(dim=-1)[..., :-1].max(dim=-1)
    mine, theirs = (of_class(scores.decoded(), surest) for scores in (said, wanted))
    terms = {"cls": cls, "box": losses.giou_loss(mine, theirs) * confidence}
    valid = wanted.proposals.valid
    return {name: losses.mean_over(term, valid, step.world_mean) for name, term in terms.items()}


def _of_queries(
    said: QueryPredictions, wanted: QueryPredictions, step: Step, beta: float
) -> dict[str, Tensor]:
    """Distance of the class scores, and GIoU of the boxes, which count by the teacher's confidence.

    Sums over the stages of the decoder, divided by the objects, as the decoder's own losses are.
    """
    targets = [losses.precise(logits).sigmoid() for logits in wanted.logits]
    cls = [
        focal.soft_focal_loss(logits, target, beta).sum()
        for logits, target in zip(said.logits, targets, strict=True)
    ]
    box = [
        (losses.giou_loss(mine, theirs) * target.amax(dim=-1)).sum()
        for mine, theirs, target in zip(said.boxes, wanted.boxes, targets, strict=True)
    ]
    divisor = step.targets.positives
    return {"cls": torch.stack(cls).sum() / divisor, "box": torch.stack(box).sum() / divisor}
