"""What methods ask of the student's label assignment."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from detdistill.levels import level_sums
from detdistill.structures import Step

Speaking = Literal["positive", "all"]
"""Which levels speak: those on which something is positive, or all."""


def positive(step: Step, background: int) -> Tensor:
    """(B, N) bool: priors that are assigned to an object."""
    return step.targets.labels < background


def counts(step: Step, background: int) -> list[Tensor]:
    """() per level: how many priors are positive, mean over ranks."""
    priors = step.student.dense.priors
    numbers = positive(step, background).to(priors[0])
    return [step.world_mean(count) for count in level_sums(numbers, priors)]


def speaking(step: Step, background: int, levels: Speaking) -> list[Tensor]:
    """() per level: 1 if it speaks, which one positive prior on any rank is enough for, else 0."""
    least = 0 if levels == "positive" else -1
    return [(count > least).to(count) for count in counts(step, background)]
