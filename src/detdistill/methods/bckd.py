"""BCKD: every class is a yes-or-no question of its own, and boxes are compared by their overlap.

The class term counts a location more the further the two probabilities are apart, the box term
more the further the class scores are.

Paper: Yang et al., "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object
    Detection", ICCV 2023 (arXiv 2308.14286).
Reads: the predictions of both, the label assignment.
Differs: as in the released code, not the paper, a level on which nothing is positive is silent
    (`levels="all"` is the formula as printed), boxes are compared by generalised IoU
    (`overlap="iou"` is the paper's), and the class term's factor is differentiated too. A level
    speaks if it has a positive on any rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from detdistill import focal, losses
from detdistill.levels import Levels, cells_of, to_priors
from detdistill.methods.method import Method
from detdistill.methods.parts import assignment
from detdistill.methods.parts.pair import same_predictions
from detdistill.structures import Reads, Spec, Step


class BCKD(Method):
    """Binary cross entropy of the class scores and generalised IoU of the boxes."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "predictions"
    needs: ClassVar[Reads] = Reads(neck=False, predictions=True, targets=True)
    citation: ClassVar[str] = """@inproceedings{yang2023bckd,
  title = {Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection},
  author = {Yang, Longrong and Zhou, Xianpan and Li, Xuewei and Qiao, Liang and Li, Zheyang and
            Yang, Ziwei and Wang, Gaoang and Li, Xi},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year = {2023},
}"""

    cls_weight: float = 1.0
    """Of the class term."""
    box_weight: float = 4.0
    """Of the box term."""
    beta: float = 1.0
    """Exponent of the class term's distance."""
    overlap: Literal["giou", "iou"] = "giou"
    """How boxes are compared: by generalised IoU, as released, or by IoU, as the paper says."""
    levels: assignment.Speaking = "positive"
    """Which levels speak: those on which something is positive, as released, or all."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("bckd", teacher, student)
        self.background = len(student.classes)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`cls` and `box`."""
        student, teacher = step.student.dense, step.teacher.dense
        target = teacher.probabilities()
        questions = focal.soft_focal_loss(student.flat_logits(), target, self.beta).sum(dim=-1)
        distance = losses.giou_loss if self.overlap == "giou" else losses.iou_loss
        stride = student.flat_strides().unsqueeze(-1)
        overlap = distance(student.decoded() / stride, teacher.decoded() / stride)
        weight, divisor = self.weights(step), step.targets.positives
        apart = weight * self.disagreement(step)
        return {
            "cls": self.cls_weight * losses.weighted_mean(questions, weight, divisor),
            "box": self.box_weight * losses.weighted_mean(overlap, apart, divisor),
        }

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """Where the class term counts, and how much the box term counts there."""
        weight, neck = self.weights(step), step.student.neck
        boxes = weight * self.disagreement(step)
        return {"classes": cells_of(weight, neck), "boxes": cells_of(boxes, neck)}

    def disagreement(self, step: Step) -> Tensor:
        """(B, N) largest difference of a class's probabilities; not differentiated."""
        student, teacher = (o.dense.probabilities().detach() for o in (step.student, step.teacher))
        return (student - teacher).abs().amax(dim=-1)

    def weights(self, step: Step) -> Tensor:
        """(B, N) of the label assignment, 0 on silent levels."""
        heard = assignment.speaking(step, self.background, self.levels)
        return step.targets.weights * to_priors(heard, step.student.dense.priors)
