"""What both detectors say of an object's samples: priors of one stage, or regions of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from detdistill import boxes, losses
from detdistill.levels import of_class, take
from detdistill.methods.parts.proposals import Whose, shared
from detdistill.structures import Step


class Samples(NamedTuple):
    """Priors, or regions, as both detectors see them, and the objects that they belong to."""

    divergence: Tensor
    """(B, P) of the student's class scores from the teacher's."""
    scores: tuple[Tensor, Tensor]
    """(B, P) probability of the object's class, of student and teacher, constant."""
    corners: tuple[Tensor, Tensor]
    """(B, P, 4) boxes of student and teacher."""
    positive: Tensor
    """(B, P) bool: belongs to an object."""
    objects: Tensor
    """(B, P, 4) box of the object."""

    @property
    def overlaps(self) -> tuple[Tensor, Tensor]:
        """(B, P) IoU of the boxes with the object's, of student and teacher, constant."""
        return _both(lambda corners: boxes.iou(corners.detach(), self.objects), *self.corners)


def of_priors(step: Step, temperature: float) -> Samples:
    """The priors among which the positives are, by the student's assignment."""
    rows, said = step.targets.rows, (step.student.dense, step.teacher.dense)
    labels = take(step.targets.labels, rows)
    logits = _both(lambda one: losses.precise(take(one.flat_logits(), rows)), *said)
    return Samples(
        divergence=losses.binary_divergence(*logits, temperature).sum(dim=-1),
        scores=_both(lambda one: of_class(one.detach().sigmoid(), labels), *logits),
        corners=_both(lambda one: take(one.decoded(), rows), *said),
        positive=labels < logits[0].shape[-1],
        objects=take(step.targets.boxes, rows),
    )


def of_regions(step: Step, whose: Whose, count: int, temperature: float) -> Samples:
    """Proposals at which both second stages look; see `shared`."""
    seen = shared(step, whose, count)
    said, labels = (seen.student, seen.teacher), seen.labels
    logits = _both(lambda one: losses.precise(one.logits), *said)
    return Samples(
        divergence=losses.kl_divergence(*logits, temperature),
        scores=_both(lambda one: of_class(one.detach().softmax(dim=-1), labels), *logits),
        corners=_both(lambda one: of_class(one.decoded(), labels), *said),
        positive=seen.positive,
        objects=seen.boxes,
    )


def _both(
    question: Callable[..., Tensor], student: object, teacher: object
) -> tuple[Tensor, Tensor]:
    """The same asked of student and teacher."""
    return question(student), question(teacher)
