"""What methods that compare necks share: the two of each level, how far they are apart, names."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from detdistill import losses
from detdistill.levels import Levels
from detdistill.structures import Spec, Step


def adapted(layers: nn.ModuleList, step: Step) -> list[tuple[Tensor, Tensor]]:
    """What the adapters make of the student's neck, and the teacher's, level by level.

    Levels without an adapter, the coarsest, are left out.
    """
    necks = (neck[: len(layers)] for neck in (step.student.neck, step.teacher.neck))
    levels = zip(layers, *necks, strict=True)
    return [(adapt(student), teacher) for adapt, student, teacher in levels]


def convolved_levels(student: Spec) -> int:
    """How many levels a neck makes by convolutions: of a two-stage detector all but the coarsest.

    That one is every other cell of the level before.
    """
    return len(student.strides) - (student.family == "region")


def cell_errors(pairs: Iterable[tuple[Tensor, Tensor]]) -> Levels:
    """(B, H, W) per level: squared difference, averaged over the channels."""
    return tuple(losses.squared_error(student, teacher).mean(dim=1) for student, teacher in pairs)


def half_means(errors: Levels, cells: Levels, step: Step) -> Tensor:
    """(L,) of each level half the mean error of its cells, which may be weights."""
    levels = zip(errors, cells, strict=True)
    return torch.stack([losses.half_mean(error, cell, step.world_mean) for error, cell in levels])


def by_level(terms: Iterable[Tensor]) -> dict[str, Tensor]:
    """`level0`, `level1`, ...: the terms of the levels, named."""
    return {f"level{i}": term for i, term in enumerate(terms)}
