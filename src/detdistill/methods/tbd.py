"""TBD: learn most where the teacher's class score and box are right together.

Predictions count by their harmony; the neck is imitated once where the teacher names objects, once
where it finds them, and the task in which the student lags counts more.

Paper: Tang et al., "Task-Balanced Distillation for Object Detection", Pattern Recognition 137, 2023
    (arXiv 2208.03006; neither formulas nor code are public).
Reads: the necks, the predictions of both, the label assignment.
Differs: our reading of the abstract, not a reproduction. Ours are the harmony score (a harmonic
    mean; `geometric`, `gap` and none are settings), what it weights (the positives' class scores
    and boxes, compared with the teacher's), the two masks of the neck (the teacher's best class
    score, and the overlap of its box with the object, in each cell), their balance, all weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from detdistill import losses
from detdistill.levels import Levels, cells_of, put, take
from detdistill.masks import ObjectQuality
from detdistill.methods.parts.balance import Balanced
from detdistill.methods.parts.necks import adapted, by_level, cell_errors, half_means
from detdistill.methods.parts.pair import Adapter, adapters, same_predictions
from detdistill.structures import Reads, Spec, Step


class TBD(Balanced):
    """Predictions weighted by the teacher's harmony, and the neck weighted by task."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "neck and predictions"
    needs: ClassVar[Reads] = Reads(predictions=True, targets=True)
    agrees: ClassVar[bool] = False
    reading: ClassVar[str] = (
        "Neither formulas nor code are public. What is computed here is inspired by the abstract."
    )
    citation: ClassVar[str] = """@article{tang2023tbd,
  title = {Task-Balanced Distillation for Object Detection},
  author = {Tang, Ruining and Liu, Zhenyu and Li, Yangguang and Song, Yiguo and Liu, Hui and
            Wang, Qide and Shao, Jing and Duan, Guifang and Tan, Jianrong},
  journal = {Pattern Recognition},
  volume = {137},
  year = {2023},
}"""

    harmony_weight: float = 1.0
    """Of harmony distillation: class scores and boxes of the positives."""
    box_weight: float = 1.0
    """Of the boxes within it."""
    feature_weight: float = 1.0
    """Of task-decoupled feature distillation: the mean over the levels of the neck."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("tbd", teacher, student)
        self.adapters = adapters("tbd", self.adapter, teacher, student)
        self.fit(student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`cls` and `box` of the positives, `level0`, `level1`, ... of the neck."""
        teacher = self.quality(step.teacher.dense, step)
        student = self.quality(step.student.dense, step)
        shares = self.task_shares(teacher, student, step)
        return self._harmony_terms(teacher, step) | self._feature_terms(teacher, shares, step)

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """Where predictions count by their harmony, and where the neck counts for either task."""
        teacher = self.quality(step.teacher.dense, step)
        naming, finding = self.named_and_found(teacher, step)
        count, labels = self.counts(teacher, step), step.targets.labels
        harmony = cells_of(put(count, step.targets.rows, labels.shape[1]), step.teacher.neck)
        return {"harmony": harmony, "naming": naming, "finding": finding}

    def _harmony_terms(self, teacher: ObjectQuality, step: Step) -> dict[str, Tensor]:
        count, rows = self.counts(teacher, step), step.targets.rows
        said, wanted = step.student.dense, step.teacher.dense
        target = losses.precise(take(wanted.flat_logits(), rows)).sigmoid()
        cls = losses.soft_bce(take(said.flat_logits(), rows), target).sum(dim=-1)
        box = losses.giou_loss(take(said.decoded(), rows), take(wanted.decoded(), rows))
        cls, box = (losses.mean_over(lost, count, step.world_mean) for lost in (cls, box))
        return {
            "cls": self.harmony_weight * cls,
            "box": self.harmony_weight * self.box_weight * box,
        }

    def _feature_terms(
        self, teacher: ObjectQuality, shares: tuple[Tensor, Tensor], step: Step
    ) -> dict[str, Tensor]:
        errors = cell_errors(adapted(self.adapters, step))
        tasks = zip(shares, self.named_and_found(teacher, step), strict=True)
        naming, finding = (share * half_means(errors, cells, step) for share, cells in tasks)
        return by_level(self.feature_weight / len(self.adapters) * (naming + finding))
