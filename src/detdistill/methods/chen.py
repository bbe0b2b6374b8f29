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

from detdistill import boxes, losses
from detdistill.levels import take
from detdistill.methods.method import Method
from detdistill.methods.parts import assignment
from detdistill.methods.parts.necks import adapted
from detdistill.methods.parts.pair import Adapter, adapters, same_predictions
from detdistill.structures import (
    DensePredictions,
    Reads,
    Spec,
    Step,
)


class Chen(Method):
    """Weighted cross entropy, teacher-bounded squared error of boxes, and a hint."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "neck and predictions"
    needs: ClassVar[Reads] = Reads(predictions=True, targets=True)
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
        target = step.teacher.dense.probabilities()
        lost = losses.soft_bce(
            step.student.dense.flat_logits(), target, background=self.background
        ).sum(dim=-1)
        positive = assignment.positive(step, self.classes)
        counted = step.targets.weights > 0
        halves = (positive & counted, ~positive & counted)
        return torch.stack([losses.mean_over(lost, h, step.world_mean) for h in halves]).mean()

    def _box_term(self, step: Step) -> Tensor:
        """Squared error of the positives whose error is not below the teacher's."""
        said, bound = (self._error(o.dense, step) for o in (step.student, step.teacher))
        positive = take(assignment.positive(step, self.classes), step.targets.rows)
        worse = (said.detach() + self.margin > bound) & positive
        return (said * worse).sum() / step.targets.positives

    def _error(self, said: DensePredictions, step: Step) -> Tensor:
        """(B, P) squared distance of the edges from the object's, as shares of what is larger."""
        target, rows = step.targets.boxes, step.targets.rows
        size = torch.maximum(boxes.sides(target), boxes.sides(said.flat_priors())).clamp(min=1)
        apart = (take(said.decoded(), rows) - take(target, rows)) / take(size, rows).repeat(1, 1, 2)
        return apart.square().sum(dim=-1)

    def _hint(self, step: Step) -> Tensor:
        """Mean squared difference of the necks, averaged over the levels."""
        pairs = adapted(self.adapters, step)
        return torch.stack([losses.squared_error(*pair).mean() for pair in pairs]).mean()
