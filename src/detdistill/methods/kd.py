"""KD: the student's own predictions should equal the teacher's, on every prior.

Plain prediction mimicking, the baseline of CrossKD's tables: the same distances and divisors, but
without the crossing, so that the student's last layers hear both the labels and the teacher.

Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531); on
    dense detectors as in CrossKD (Wang et al., CVPR 2024, arXiv 2306.11369), tables 3, 4 and 7.
Reads: the predictions of both, the label assignment.
Differs: no code was released for CrossKD's baseline; distances, weights and divisors are those of
    its method. Boxes are compared as distributions where both have equally many bins, as boxes
    elsewhere. `classes` offers the distances of other tables; each is 0 where both agree.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from detdistill import losses
from detdistill.levels import Levels, unflatten
from detdistill.methods.parts.mimicry import Mimicry, common
from detdistill.methods.parts.pair import same_predictions
from detdistill.structures import (
    DensePredictions,
    Reads,
    Spec,
    Step,
)


class KD(Mimicry):
    """Distance of the student's predictions from the teacher's."""

    pulls: ClassVar[str] = "predictions"
    needs: ClassVar[Reads] = Reads(neck=False, predictions=True, targets=True)
    citation: ClassVar[str] = """@misc{hinton2015distilling,
  title = {Distilling the Knowledge in a Neural Network},
  author = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  year = {2015},
  eprint = {1503.02531},
  archiveprefix = {arXiv},
}"""

    classes: Literal["focal", "binary", "softmax"] = "focal"
    """Distance of class scores: quality focal loss; every class a yes-or-no question; or all
    classes one distribution, as in classification."""
    cls_temperature: float = 1.0
    """Of class scores, unless they are compared by focal loss."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("kd", teacher, student)
        self.priors_per_cell = student.priors_per_cell
        self.compare(common(student, teacher))

    def predicted(self, step: Step) -> DensePredictions:
        """What the student says."""
        return step.student.dense

    def cls_distance(self, logits: Tensor, target: Tensor) -> Tensor:
        """Of class scores from the teacher's: logits (B, N, K) of both -> (B, N)."""
        if self.classes == "focal":
            return super().cls_distance(logits, target)
        if self.classes == "softmax":
            return losses.kl_divergence(logits, target, self.cls_temperature)
        return losses.binary_divergence(logits, target, self.cls_temperature).sum(dim=-1)

    def cell_losses(self, step: Step) -> Levels:
        """(B, H, W) per level: the distance of the class scores of each cell."""
        student, teacher = step.student.dense, step.teacher.dense
        lost = self.cls_distance(student.flat_logits(), teacher.flat_logits())
        lost = (lost * step.targets.weights).unflatten(1, (-1, self.priors_per_cell))
        return unflatten(lost.sum(dim=2), step.student.neck)
