"""What DeFeat and TADF share: regions of which both two-stage detectors say what they see."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from detdistill import masks
from detdistill.methods.parts.mimicry import sampled
from detdistill.structures import Proposals, RegionHead, RegionScores, Spec, Step, Truth

Whose = Literal["teacher", "student"]
"""Whose proposals both detectors look at."""


class Shared(NamedTuple):
    """The same regions, seen by both second stages."""

    student: RegionScores
    teacher: RegionScores
    labels: Tensor
    """(B, P) class number, or K for background and padding."""
    boxes: Tensor
    """(B, P, 4) box of the object; zeros for background."""

    @property
    def positive(self) -> Tensor:
        """(B, P) bool: regions of an object."""
        return self.labels < self.student.logits.shape[-1] - 1

    @property
    def negative(self) -> Tensor:
        """(B, P) bool: regions of none."""
        return self.student.proposals.valid & ~self.positive


def are_two_stage(teacher: Spec, student: Spec) -> bool:
    """Whether there is a second stage on both sides that could look at the same regions."""
    return teacher.family == student.family == "region"


def shared(step: Step, whose: Whose, count: int) -> Shared:
    """Both detectors on the regions of one of them.

    Args:
        step: of two two-stage detectors.
        whose: the student's are those on which it is trained, with their labels; the teacher's are
            the objects and its best proposals, which belong to an object from an IoU of 0.5.
        count: how many of the teacher's proposals of each image.
    """
    student_head, teacher_head = (
        cast("RegionHead", head) for head in (step.student_head, step.teacher_head)
    )
    if whose == "student":
        own = sampled(step)
        mine, labels, corners = own.scores, own.labels, own.boxes
    else:
        regions = _best(step.teacher.regions.proposals, step.truth, count)
        mine = student_head.classify(step.student.neck, regions)
        background = mine.logits.shape[-1] - 1
        labels, corners = masks.objects_of(regions.boxes, step.truth, background)
        labels = labels.masked_fill(~regions.valid, background)
    with torch.no_grad():
        theirs = teacher_head.classify(step.teacher.neck, mine.proposals)
    return Shared(mine, theirs, labels, corners)


def _best(proposals: Proposals, truth: Truth, count: int) -> Proposals:
    """The objects and the first `count` proposals of each image."""
    return Proposals(
        boxes=torch.cat([truth.boxes.to(proposals.boxes), proposals.boxes[:, :count]], dim=1),
        valid=torch.cat([truth.valid, proposals.valid[:, :count]], dim=1),
    )
