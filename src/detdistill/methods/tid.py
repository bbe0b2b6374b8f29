"""TID: imitate the teacher's neck where teacher and student show that it matters.

Every cell is valued by how well the teacher detects there, by how far the student lags behind, and
by how near an object is; three tiers of value are imitated with different strength.

Paper: Su, Jian and Yu, "Task Integration Distillation for Object Detectors" (no code was released).
Reads: the necks, the predictions of both, the objects.
Differs: the paper leaves much open and misprints some; every choice is a setting. Defaults where it
    contradicts itself: decoded boxes, not anchors, are compared with the objects; the score of a
    cell is a product (the overview says sum); the teacher's score counts everywhere; suppression
    precedes the selection of weak cells; nearness falls with the distance (as printed it grows);
    the loss is squared (as printed it is signed) and divided like DeFeat's, per tier and level.
    Where the necks differ in size, the student's is resized. Of two-stage detectors the first
    stage is looked at, which knows one class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from detdistill.losses import precise, resized
from detdistill.methods.parts.pair import (
    Adapter,
    adapters,
    same_classes,
    same_family,
    same_level_count,
)
from detdistill.methods.parts.values import Valued
from detdistill.structures import Levels, Reads, Spec, Step, unflatten


class TID(Valued):
    """Squared difference of the necks, weighted by the value of each cell."""

    families: ClassVar[tuple[str, ...]] = ("dense", "region")
    pulls: ClassVar[str] = "neck"
    needs: ClassVar[Reads] = Reads(predictions=True)
    selects: ClassVar[bool] = True
    reading: ClassVar[str] = (
        "The authors released no code. Where the paper leaves a choice, the choice is ours."
    )
    citation: ClassVar[str] = """@misc{su_tid,
  title = {Task Integration Distillation for Object Detectors},
  author = {Su, Hai and Jian, Zhenwen and Yu, Songsen},
}"""

    weight: float = 1.0
    """Of the mean over levels."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""
    tier_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of the tiers' losses."""
    normaliser: Literal["tier", "all", "mask", "none"] = "tier"
    """Divide by the cells of the tier, all cells, or the sum of the mask, each times twice the
    channels; or not."""
    distance: Literal["l2", "l1"] = "l2"
    """Squared or absolute difference."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs pyramids of one height, and equal classes."""
        same_family("tid", teacher, student)
        same_level_count("tid", teacher, student)
        same_classes("tid", teacher, student)
        self.fit(teacher, student)
        self.adapters = adapters("tid", self.adapter, teacher, student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        values, teacher = self.values(step), step.teacher.neck
        mask, tier = unflatten(values.mask, teacher), unflatten(values.tier, teacher)
        terms = {}
        for i, adapt in enumerate(self.adapters):
            student = resized(adapt(step.student.neck[i]), teacher[i])
            terms[f"level{i}"] = self._loss(step, student, teacher[i], mask[i], tier[i])
        return terms

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """The importance of every cell, and what it is made of."""
        values = self.values(step)
        maps = {
            "importance": values.mask,
            "key": values.key,
            "weak": values.weak,
            "near": values.near,
        }
        return {name: unflatten(flat, step.teacher.neck) for name, flat in maps.items()}

    def _loss(
        self, step: Step, student: Tensor, teacher: Tensor, mask: Tensor, tier: Tensor
    ) -> Tensor:
        """One level's term: features (B, C, H, W), mask and tier (B, H, W) -> ()."""
        mask, difference = mask.to(precise(student)), precise(student) - precise(teacher)
        error = difference.square() if self.distance == "l2" else difference.abs()
        per_cell = mask * error.sum(dim=1)
        total = per_cell.new_zeros(())
        for number, weight in enumerate(self.tier_weights):
            inside = tier == number
            divisor = self._divisor(step, mask, inside, channels=student.shape[1])
            total = total + weight * (per_cell * inside).sum() / divisor
        return self.weight / len(self.adapters) * total

    def _divisor(
        self, step: Step, mask: Tensor, inside: Tensor, *, channels: int
    ) -> Tensor | float:
        """What a tier's sum is divided by; counts are means over ranks."""
        if self.normaliser == "none":
            return 1.0
        if self.normaliser == "all":
            return 2.0 * channels * mask.numel()
        count = inside.to(mask).sum() if self.normaliser == "tier" else mask.sum()
        return 2 * channels * step.world_mean(count).clamp(min=1)
