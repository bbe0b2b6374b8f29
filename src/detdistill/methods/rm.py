"""RM: among the priors of one object, the student should rank them as the teacher does.

The scores of an object's positives become one distribution; so do the overlaps of their boxes.

Paper: Li et al., "Knowledge Distillation for Object Detection via Rank Mimicking and
    Prediction-guided Feature Imitation", AAAI 2022 (arXiv 2112.04840).
Reads: the predictions of both, the label assignment, the objects.
Differs: the authors released no code; what is checked against numbers is mmrazor's class term. It
    sorts both sides' scores first, so that it compares how steep two rankings are and not which
    prior is where (`ordered=False`); here a prior is compared with itself, as the paper has it. The
    box term is our reading of the paper's ranking by localisation. Images without objects count as
    0 (mmrazor: not a number).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from detdistill import instances, losses, masks
from detdistill.methods.method import Method
from detdistill.methods.parts.pair import same_predictions
from detdistill.structures import Reads, Spec, Step


class RM(Method):
    """Divergence of the rankings of each object's positives, averaged over the objects."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "predictions"
    needs: ClassVar[Reads] = Reads(neck=False, predictions=True, targets=True)
    citation: ClassVar[str] = """@inproceedings{li2022rank,
  title = {Knowledge Distillation for Object Detection via Rank Mimicking and Prediction-guided
           Feature Imitation},
  author = {Li, Gang and Li, Xiang and Wang, Yujie and Zhang, Shanshan and Wu, Yichao and
            Liang, Ding},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2022},
}"""

    cls_weight: float = 4.0
    """Of the ranking by the probability of the object's class; mmrazor's."""
    box_weight: float = 4.0
    """Of the ranking by the overlap of the predicted box with the object."""
    ordered: bool = True
    """Compare each prior with itself; otherwise best with best, second with second, as mmrazor."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("rm", teacher, student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`cls` and `box`."""
        student, teacher = (
            instances.object_quality(output.dense, step.targets)
            for output in (step.student, step.teacher)
        )
        return {
            "cls": self.cls_weight * self.divergence(student.score, teacher.score, step),
            "box": self.box_weight * self.divergence(student.overlap, teacher.overlap, step),
        }

    def divergence(self, student: Tensor, teacher: Tensor, step: Step) -> Tensor:
        """Mean over the images of the mean over their objects; qualities are (B, P)."""
        owner = instances.owners(step.targets, step.truth)
        if not self.ordered:
            student, teacher = (_worst_first(quality, owner) for quality in (student, teacher))
            owner = owner.sort(dim=1, descending=True).values
        slots = step.truth.valid.shape[1]
        log_p, log_q = (losses.log_softmax_within(x, owner, slots) for x in (student, teacher))
        lost = log_q.exp() * (log_q - log_p) * (owner < slots)
        objects = step.truth.valid.sum(dim=1).clamp(min=1)
        return (lost.sum(dim=1) / objects).mean()


def _worst_first(quality: Tensor, owner: Tensor) -> Tensor:
    """(B, P) sorted within each object; the objects stand from the last to the first."""
    return quality.gather(1, masks.ranking(owner, -quality))
