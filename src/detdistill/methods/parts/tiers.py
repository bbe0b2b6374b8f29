"""How TID's loss is summed: over tiers of value, each with its own weight and divisor."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from detdistill.losses import precise, resized
from detdistill.methods.method import Method
from detdistill.structures import Step


class Tiered(Method):
    """Weighted difference of maps, tier by tier."""

    tier_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of the tiers' losses."""
    normaliser: Literal["tier", "all", "mask", "none"] = "tier"
    """Divide by the cells of the tier, all cells, or the sum of the mask, each times twice the
    channels; or not."""
    distance: Literal["l2", "l1"] = "l2"
    """Squared or absolute difference."""

    def tiered(
        self, student: Tensor, teacher: Tensor, mask: Tensor, tier: Tensor, step: Step
    ) -> Tensor:
        """() of one level; the student's map is resized to the teacher's.

        Args:
            student: (B, C, H', W').
            teacher: (B, C, H, W).
            mask: (B, H, W) what the difference is weighted by.
            tier: (B, H, W) number of each cell's tier.
            step: for the mean over ranks.
        """
        student = resized(student, teacher)
        mask, difference = mask.to(precise(student)), precise(student) - precise(teacher)
        error = difference.square() if self.distance == "l2" else difference.abs()
        per_cell = mask * error.sum(dim=1)
        total = per_cell.new_zeros(())
        for number, weight in enumerate(self.tier_weights):
            inside = tier == number
            divisor = self._divisor(step, mask, inside, channels=student.shape[1])
            total = total + weight * (per_cell * inside).sum() / divisor
        return total

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
