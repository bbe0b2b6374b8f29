"""Regions that are looked at: proposals shown to both second stages, or the surest boxes of one."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from detdistill import instances, losses, masks
from detdistill.methods.parts.mimicry import sampled
from detdistill.structures import (
    DetectorOutput,
    Proposals,
    QueryPredictions,
    RegionHead,
    RegionScores,
    Spec,
    Step,
    Truth,
)

Whose = Literal["teacher", "student"]
"""Whose proposals both detectors look at."""

CANDIDATES = 8
"""Boxes that are considered for each of the surest that is taken."""


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


def surest(
    output: DetectorOutput, sizes: Tensor, count: int, overlap: float
) -> tuple[Tensor, Tensor]:
    """The boxes with the highest class scores, without those that overlap a better one.

    Args:
        output: of a detector of one stage, or of queries.
        sizes: (B, 2) height and width of the images.
        count: M, how many to take per image at most.
        overlap: IoU above which the lesser box is left out.

    Returns:
        (B, M, 4), and (B, M) bool, where there are so many.
    """
    if isinstance(output.predictions, QueryPredictions):
        logits, corners = output.queries.logits[-1], output.queries.boxes[-1]
    else:
        logits, corners = output.dense.flat_logits(), output.dense.decoded()
    return instances.general_instances(
        losses.precise(logits).amax(dim=-1),
        corners,
        sizes,
        candidates=CANDIDATES * count,
        overlap=overlap,
        count=count,
        side=0.0,
    )
