"""TADF: imitate objects only, there only where the teacher does better, and less and less.

The neck is imitated under a bell over each object, scores and boxes on positives alone.

Paper: Sun et al., "Distilling Object Detectors with Task Adaptive Regularization", 2020
    (arXiv 2006.13108; no code was released: the bells are as in DeFeat's, all else is our reading).
Reads: the necks, the objects, the predictions of both, the label assignment; of two-stage detectors
    the second stage on shared proposals.
Differs: the paper's idea is kept, its formulas were not at hand: a positive counts in full where
    the teacher's probability of its class, or the overlap of the teacher's box, is higher than the
    student's, and not otherwise. Boxes are compared by generalised IoU in pixels, so that heads of
    any kind will do; all weights are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from detdistill import boxes, losses, masks
from detdistill.methods.method import Method
from detdistill.methods.parts import pair
from detdistill.methods.parts.proposals import Whose, shared
from detdistill.structures import Reads, Spec, Step, take


class Samples(NamedTuple):
    """Priors, or regions, as both detectors see them, and the objects that they belong to."""

    divergence: Tensor
    """(B, P) of the student's class scores from the teacher's."""
    scores: tuple[Tensor, Tensor]
    """(B, P) probability of the object's class, of student and teacher."""
    corners: tuple[Tensor, Tensor]
    """(B, P, 4) boxes of student and teacher."""
    positive: Tensor
    """(B, P) bool: belongs to an object."""
    objects: Tensor
    """(B, P, 4) box of the object."""


class TADF(Method):
    """Difference of the necks under bells, of scores and boxes where the teacher does better."""

    families: ClassVar[tuple[str, ...]] = ("dense", "region")
    pulls: ClassVar[str] = "neck and predictions"
    reading: ClassVar[str] = (
        "The authors released no code, and of the paper's formulas only the bells were at hand."
    )
    citation: ClassVar[str] = """@misc{sun2020tadf,
  title = {Distilling Object Detectors with Task Adaptive Regularization},
  author = {Sun, Ruoyu and Tang, Fuhui and Zhang, Xiaopeng and Xiong, Hongkai and Tian, Qi},
  year = {2020},
}"""

    neck_weight: float = 4.0
    """Of the neck under the bells, averaged over the levels."""
    cls_weight: float = 1.0
    """Of the class scores of positives."""
    box_weight: float = 1.0
    """Of the boxes of positives."""
    counts: Literal["better", "quality", "all"] = "better"
    """How much a positive counts: in full where the teacher does better than the student, as much
    as the teacher is right (probability of the class, overlap of the box), or always in full."""
    temperature: float = 1.0
    """Of the class scores."""
    decay: losses.Fading = "linear"
    """How all weights fall to nothing by the end of the training."""
    proposals: Whose = "teacher"
    """Whose proposals both second stages look at, in two-stage detectors."""
    count: int = 512
    """Proposals of each image."""
    adapter: pair.Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    @property
    def reads(self) -> Reads:
        """The teacher's predictions and the assignment."""
        return Reads(predictions=True, targets=True)

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        pair.same_predictions("tadf", teacher, student)
        self.adapters = pair.adapters("tadf", self.adapter, teacher, student)
        self.strides = student.strides
        self.two_stages = student.family == "region"

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`neck`, `cls` and `box`."""
        samples = self.of_regions(step) if self.two_stages else self.of_priors(step)
        overlaps = [boxes.iou(corners.detach(), samples.objects) for corners in samples.corners]
        number = step.world_mean(samples.positive.float().sum()).clamp(min=1)
        worth = [self.worth(*done) * samples.positive for done in (samples.scores, overlaps)]
        distance = losses.giou_loss(*samples.corners)
        terms = {
            "neck": self.neck_weight * self.neck(step),
            "cls": self.cls_weight * (samples.divergence * worth[0]).sum() / number,
            "box": self.box_weight * (distance * worth[1]).sum() / number,
        }
        left = losses.faded(self.decay, step.progress)
        return {name: left * term for name, term in terms.items()}

    def neck(self, step: Step) -> Tensor:
        """Half the mean squared difference under the bells, averaged over the levels."""
        bells = masks.pyramid(masks.gaussian_cells, step.truth, step.student.neck, self.strides)
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, bells, strict=True)
        means = [
            losses.half_mean(
                losses.squared_error(adapt(mine), theirs).mean(dim=1), bell, step.world_mean
            )
            for adapt, mine, theirs, bell in levels
        ]
        return torch.stack(means).mean()

    def worth(self, student: Tensor, teacher: Tensor) -> Tensor:
        """How much each sample counts by how well student and teacher do: (B, P) twice."""
        if self.counts == "better":
            return (teacher > student).to(teacher)
        return teacher if self.counts == "quality" else torch.ones_like(teacher)

    def of_priors(self, step: Step) -> Samples:
        """The priors among which the positives are, by the student's assignment."""
        targets, rows = step.targets, step.targets.rows
        both = [step.student.dense, step.teacher.dense]
        logits = [losses.precise(take(one.flat_logits(), rows)) for one in both]
        student, teacher = (take(one.decoded(), rows) for one in both)
        labels, classes = take(targets.labels, rows), logits[0].shape[-1]
        divergence = losses.binary_divergence(logits[0], logits[1], self.temperature)
        return Samples(
            divergence=divergence.sum(dim=-1),
            scores=_of_class([one.detach().sigmoid() for one in logits], labels),
            corners=(student, teacher),
            positive=labels < classes,
            objects=take(targets.boxes, rows),
        )

    def of_regions(self, step: Step) -> Samples:
        """Shared proposals."""
        both = shared(step, self.proposals, self.count)
        said = [both.student, both.teacher]
        logits = [losses.precise(one.logits) for one in said]
        student, teacher = _of_class([one.decoded() for one in said], both.labels)
        return Samples(
            divergence=losses.kl_divergence(logits[0], logits[1], self.temperature),
            scores=_of_class([one.detach().softmax(dim=-1) for one in logits], both.labels),
            corners=(student, teacher),
            positive=both.positive,
            objects=both.boxes,
        )


def _of_class(both: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """What student and teacher say of each sample's class, of background anything.

    (B, P, K) or (B, P, K, 4) each -> (B, P) or (B, P, 4) each.
    """
    mine, theirs = (
        one.take_along_dim(labels.clamp(max=one.shape[2] - 1).view(rows), 2).squeeze(2)
        for one in both
        for rows in [(*labels.shape, *(1,) * (one.ndim - 2))]
    )
    return mine, theirs
