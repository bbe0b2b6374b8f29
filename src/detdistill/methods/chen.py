"""Chen: imitate class scores, above all of background; the teacher's box errors are good enough.

The first distillation of detectors. A box of the student is corrected only where it is worse than
the teacher's; the neck is imitated as well.

Paper: Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation",
    NeurIPS 2017, equations 3 to 6.
Reads: the necks, the predictions of both, the label assignment.
Differs: our reading for one-stage detectors, of what was made for Faster R-CNN; no code was
    released. Every class is a yes-or-no question, as in its first stage, and "no" is background.
    Positives and background have equal shares, each averaged, which is what its balanced sampling
    amounts to. Edges of boxes are compared as shares of the object's or the prior's side, whichever
    is larger. The labels keep their full weight, so weights are relative to that. The margin is
    0, as we know of no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from detdistill import losses
from detdistill.methods.method import Method
from detdistill.methods.parts.pair import Adapter, adapters, same_predictions
from detdistill.structures import DensePredictions, Reads, Spec, Step, take


class Chen(Method):
    """Weighted cross entropy, teacher-bounded squared error of boxes, and a hint."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "neck and predictions"
    agrees: ClassVar[bool] = False
    reading: ClassVar[str] = (
        "Made for Faster R-CNN, and without released code; what it means for one-stage detectors "
        "is chosen here."
    )
    citation: ClassVar[str] = """@inproceedings{chen2017learning,
  title = {Learning Efficient Object Detection Models with Knowledge Distillation},
  author = {Chen, Guobin and Choi, Wongun and Yu, Xiang and Han, Tony and Chandraker, Manmohan},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017},
}"""

    cls_weight: float = 1.0
    """Of the class scores; the paper's, half of what there is for labels and teacher."""
    background: float = 1.5
    """How much more background counts than a class."""
    box_weight: float = 0.5
    """Of boxes."""
    margin: float = 0.0
    """By how much a box's squared error may be smaller than the teacher's and still count."""
    hint_weight: float = 0.5
    """Of the neck."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    @property
    def reads(self) -> Reads:
        """The teacher's predictions and the assignment."""
        return Reads(predictions=True, targets=True)

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("chen", teacher, student)
        self.adapters = adapters("chen", self.adapter, teacher, student)
        self.classes = len(student.classes)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`cls`, `box` and `hint`."""
        return {
            "cls": self.cls_weight * self._cls_term(step),
            "box": self.box_weight * self._box_term(step),
            "hint": self.hint_weight * self._hint(step),
        }

    def _cls_term(self, step: Step) -> Tensor:
        """Mean over the positives and mean over background, half of each."""
        student, teacher = step.student.dense.flat_logits(), step.teacher.dense.flat_logits()
        target = losses.precise(teacher).sigmoid()
        lost = losses.soft_bce(student, target, background=self.background).sum(dim=-1)
        positive = step.targets.labels < self.classes
        counted = step.targets.weights > 0
        halves = [(lost * group, group) for group in (positive & counted, ~positive & counted)]
        means = [part.sum() / _count(group, step) for part, group in halves]
        return torch.stack(means).mean()

    def _box_term(self, step: Step) -> Tensor:
        """Squared error of the positives whose error is not below the teacher's."""
        said, bound = (self._error(o.dense, step) for o in (step.student, step.teacher))
        positive = take(step.targets.labels, step.targets.rows) < self.classes
        worse = (said.detach() + self.margin > bound) & positive
        return (said * worse).sum() / step.targets.positives

    def _error(self, said: DensePredictions, step: Step) -> Tensor:
        """(B, P) squared distance of the edges from the object's, as shares of what is larger."""
        target, rows = step.targets.boxes, step.targets.rows
        size = torch.maximum(_size(target), _size(said.flat_priors())).clamp(min=1)
        apart = (take(said.decoded(), rows) - take(target, rows)) / take(size, rows).repeat(1, 1, 2)
        return apart.square().sum(dim=-1)

    def _hint(self, step: Step) -> Tensor:
        """Mean squared difference of the necks, averaged over the levels."""
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, strict=True)
        errors = [losses.squared_error(adapt(s), t).mean() for adapt, s, t in levels]
        return torch.stack(errors).mean()


def _count(group: Tensor, step: Step) -> Tensor:
    """How many priors, at least 1."""
    return step.world_mean(group.sum().float()).clamp(min=1)


def _size(corners: Tensor) -> Tensor:
    """Boxes (..., 4) -> (..., 2) width and height."""
    return corners[..., 2:] - corners[..., :2]
