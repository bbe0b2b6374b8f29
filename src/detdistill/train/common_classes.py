"""Teacher and student as methods see them: two detectors of the classes that both know.

A class that only one of them knows has no part in distillation, in whatever method. Where every
class is a yes-or-no question (one-stage and query heads), the scores of other classes are left out,
so that no gradient reaches them. Where all classes share one probability (the second stage of
two-stage detectors), other classes and background are one outcome, "none of these": the teacher has
a say in how probable that is, not in what it consists of. An object of a class that the teacher
does not know is not there: its priors are ignored, its regions and queries are background, it makes
no cell worth more than others, and no divisor counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from detdistill.classes import ClassMatch
from detdistill.detectors.assign import normaliser
from detdistill.levels import Levels
from detdistill.structures import (
    AnyHead,
    DensePredictions,
    DetectorOutput,
    Matches,
    Proposals,
    QueryPredictions,
    Regions,
    RegionScores,
    RegionTrace,
    Spec,
    Step,
    Targets,
    Truth,
    local_mean,
)

Said = TypeVar("Said")
Assigned = TypeVar("Assigned", Targets, Regions, Matches)


class CommonClasses(nn.Module):
    """Turns specs and steps of two detectors into those of their common classes.

    Args:
        found: the student's classes among the teacher's; at least one is.
    """

    def __init__(self, found: ClassMatch) -> None:
        super().__init__()
        theirs, mine = zip(*found.pairs, strict=True)
        self.names = tuple(found.mine[number] for number in mine)
        self.teacher = Narrowed(theirs, len(found.theirs))
        self.student = Narrowed(mine, len(found.mine))

    def spec(self, spec: Spec) -> Spec:
        """What is known of either detector."""
        return replace(spec, classes=self.names)

    def forward(self, step: Step) -> Step:
        """The same step, as far as common classes go."""
        return replace(
            step,
            truth=self.student.truth(step.truth),
            student=self.student.output(step.student),
            teacher=self.teacher.output(step.teacher),
            targets=self.student.targets(step.targets, step.world_mean),
            student_head=self.student.head(step.student_head),
            teacher_head=self.teacher.head(step.teacher_head),
        )


class Narrowed(nn.Module):
    """What is left of one detector's classes, and in which order.

    Args:
        kept: the classes' old numbers, in their new order.
        count: how many classes there were.
    """

    kept: Tensor
    """(K',) old class numbers."""
    rest: Tensor
    """(K - K' + 1,) those of all others, and background."""
    renumbered: Tensor
    """(K + 1,) the new number of each class and of background; K' for those that are left out."""

    def __init__(self, kept: Sequence[int], count: int) -> None:
        super().__init__()
        self.count, self.left = count, len(kept)
        self.is_whole = tuple(kept) == tuple(range(count))
        rest = [number for number in range(count + 1) if number not in kept]
        renumbered = torch.full((count + 1,), self.left)
        renumbered[list(kept)] = torch.arange(self.left)
        self.register_buffer("kept", torch.tensor(kept), persistent=False)
        self.register_buffer("rest", torch.tensor(rest), persistent=False)
        self.register_buffer("renumbered", renumbered, persistent=False)

    def head(self, head: AnyHead) -> AnyHead:
        """A head that says no more than what is left."""
        return head if self.is_whole else cast("AnyHead", _NarrowedHead(head, self))

    def output(self, output: DetectorOutput) -> DetectorOutput:
        """What a detector says. The first of two stages does not tell classes apart."""
        return replace(output, predictions=self.said(output.predictions))

    def said(self, said: Said) -> Said:
        """Predictions of any kind."""
        if self.is_whole:
            return said
        if isinstance(said, DensePredictions):
            return replace(said, logits=tuple(map(self._cells, said.logits)))
        if isinstance(said, QueryPredictions):
            return replace(said, logits=tuple(self._last(stage) for stage in said.logits))
        if isinstance(said, RegionScores):
            none_of_these = said.logits.index_select(-1, self.rest).logsumexp(-1, keepdim=True)
            logits = torch.cat([self._last(said.logits), none_of_these], dim=-1)
            return replace(said, logits=logits, boxes=said.boxes.index_select(2, self.kept))
        return said

    def truth(self, truth: Truth) -> Truth:
        """Objects of classes that are left out are not valid."""
        if self.is_whole:
            return truth
        labels = self.renumbered[truth.labels]
        known = labels < self.left
        return replace(truth, labels=labels.where(known, 0), valid=truth.valid & known)

    def targets(
        self, targets: Targets, world_mean: Callable[[Tensor], Tensor] = local_mean
    ) -> Targets:
        """Nothing is assigned to objects of classes that are left out; their priors are ignored."""
        if self.is_whole:
            return targets
        if targets.regions is not None:
            return replace(targets, regions=self._regions(targets.regions))
        found = self._assigned(targets)
        ignored = (found.labels == self.left) & (targets.labels < self.count)
        return replace(
            found,
            weights=found.weights.masked_fill(ignored, 0),
            positives=normaliser(found.labels < self.left, world_mean, per_image=targets.per_image),
            matches=targets.matches and self._assigned(targets.matches),
        )

    def _regions(self, regions: Regions) -> Regions:
        return replace(self._assigned(regions), scores=self.said(regions.scores))

    def _assigned(self, assigned: Assigned) -> Assigned:
        """Labels in the new order; boxes of what is background now are zeros."""
        labels = self.renumbered[assigned.labels]
        boxes = assigned.boxes * (labels < self.left).unsqueeze(-1)
        return replace(assigned, labels=labels, boxes=boxes)

    def _cells(self, level: Tensor) -> Tensor:
        """(B, A·K, H, W) -> (B, A·K', H, W)."""
        return level.unflatten(1, (-1, self.count)).index_select(2, self.kept).flatten(1, 2)

    def _last(self, logits: Tensor) -> Tensor:
        """(..., K), maybe with background behind -> (..., K')."""
        return logits.index_select(-1, self.kept)


@dataclass(frozen=True, slots=True)
class _NarrowedHead:
    """A head of any family, with fewer classes."""

    head: Any
    narrowed: Narrowed

    def pool(self, neck: Levels, proposals: Proposals) -> RegionTrace:
        """See `RegionHead.pool`."""
        pooled: RegionTrace = self.head.pool(neck, proposals)
        return pooled

    def classify(self, neck: Levels, proposals: Proposals) -> RegionScores:
        """See `RegionHead.classify`."""
        scores: RegionScores = self.head.classify(neck, proposals)
        return self.narrowed.said(scores)

    def resume(self, trace: Any, **start: int) -> Any:  # noqa: ANN401 - each family has its own
        """See `Head.resume`, `RegionHead.resume`, `QueryHead.resume`."""
        return self.narrowed.said(self.head.resume(trace, **start))
