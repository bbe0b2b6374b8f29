"""How TBD weighs objects and tasks: where both are done well together, and where a student lags."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detdistill import boxes, instances, masks
from detdistill.levels import Levels, take
from detdistill.masks import ObjectQuality
from detdistill.methods.method import Method
from detdistill.methods.parts import assignment
from detdistill.structures import DensePredictions, Spec, Step


class Balanced(Method):
    """Knows how much each positive and each task counts."""

    harmony: masks.Harmony = "harmonic"
    """Harmony of class score and overlap: harmonic or geometric mean, the latter less their `gap`,
    or `none`, with which all positives count alike."""
    exponent: float = 1.0
    """Of the harmony."""
    balance: Literal["gap", "equal"] = "gap"
    """Whether the tasks count by how far the student lags in them, or alike."""

    def fit(self, student: Spec) -> None:
        """Keeps the label of background: the number of classes."""
        self.background = len(student.classes)

    @torch.no_grad()
    def quality(self, predictions: DensePredictions, step: Step) -> ObjectQuality:
        """What one of the two makes of the objects of the positives."""
        return instances.object_quality(predictions, step.targets)

    def named_and_found(self, teacher: ObjectQuality, step: Step) -> tuple[Levels, Levels]:
        """Where the teacher names and where it finds objects: (B, H, W) per level each."""
        return masks.named_and_found(step.teacher.dense, teacher, step.targets)

    def counts(self, teacher: ObjectQuality, step: Step) -> Tensor:
        """(B, P) the harmony of each positive, 0 elsewhere."""
        return masks.harmony(teacher, self.harmony).pow(self.exponent) * self.positive(step)

    def task_shares(
        self, teacher: ObjectQuality, student: ObjectQuality, step: Step
    ) -> tuple[Tensor, Tensor]:
        """How much naming and finding count: () each, 1 together; alike without positives."""
        count = step.world_mean(self.positive(step).to(teacher.score).sum()).clamp(min=1)
        naming, finding = (
            step.world_mean((t - s).abs().sum()) / count + boxes.EPS
            for t, s in zip(teacher, student, strict=True)
        )
        if self.balance == "equal":
            naming = finding = torch.ones_like(naming)
        return naming / (naming + finding), finding / (naming + finding)

    def positive(self, step: Step) -> Tensor:
        """(B, P) bool."""
        return take(assignment.positive(step, self.background), step.targets.rows)
