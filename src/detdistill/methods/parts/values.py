"""What TID values a point by: how well both detectors do there, how the student lags, what is near.

The settings decide what the paper leaves open; each is a choice between readings of one sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill import boxes, masks
from detdistill.levels import Levels, take, unflatten
from detdistill.methods.method import Method
from detdistill.methods.parts.pair import needs_anchors
from detdistill.structures import (
    DensePredictions,
    DetectorOutput,
    Spec,
    Step,
    Truth,
)

Scope = Literal["image", "level", "batch"]


class Standing(NamedTuple):
    """How one of the two does at every point: (B, P) each, constant."""

    quality: masks.PointQuality
    score: Tensor
    """Of both tasks in one."""


class ValueMap(NamedTuple):
    """What every point of an image is worth, and why: (B, P) each, constant."""

    teacher: Standing
    student: Standing
    """At its own points, which are the teacher's unless the necks differ in size."""
    key: Tensor
    """The teacher's score where it counts."""
    weak: Tensor
    """Bool: the student lags behind here."""
    near: Tensor
    """Nearness to an object, 0 to 1."""
    value: Tensor
    """The product of the three."""
    tier: Tensor
    """0 high, 1 medium, 2 low."""
    mask: Tensor
    """What the difference is weighted by."""


class Valued(Method):
    """Knows what every point of an image is worth."""

    positive_iou: float | None = None
    """Overlap from which a point's box counts as right; None for the detectors' own threshold: 0.5,
    in the first of two stages 0.7."""
    negative_iou: float | None = None
    """Overlap up to which it counts as wrong; None for 0.4, in the first of two stages 0.3."""
    thresholds: Literal["fixed", "adaptive"] = "fixed"
    """`adaptive` has one threshold per object, as the assignment of ATSS and GFL; nothing is
    doubtful then."""
    box_scores: tuple[float, float, float] = (2.0, 1.5, 0.4)
    """Score of a right, a doubtful and a wrong box."""
    raw_iou: bool = False
    """The overlap itself is the score of a box (table 4)."""
    overlap_of: Literal["boxes", "anchors"] = "boxes"
    """What is compared with the objects: what is predicted, or the anchors."""
    objects: Literal["all", "own"] = "all"
    """Whether an object counts on every level, or on the level of its size alone."""
    class_scores: tuple[float, float] = (1.5, 1.0)
    """Score of the points that are surest of the class, and of all others."""
    class_top: float = 0.025
    """Share of points that are surest."""
    class_least: float | None = None
    """The surest are those from this probability on, instead of a share."""
    class_score: masks.ClassScore = "matched"
    """Whose probability ranks a point: the class of the best overlapping object, of any object
    present in the image, or any class."""
    class_scope: Scope = "image"
    """Rank the levels of an image together, each level for itself, or all images together."""
    combine: Literal["product", "sum"] = "product"
    """How the scores of box and class make one."""

    key: Literal["all", "top", "none"] = "all"
    """Whether the teacher's score counts everywhere, only where it is highest, or nowhere."""
    key_top: float = 0.025
    """Share of points that are highest."""
    key_outside: float | None = 1.0
    """Score outside of the highest; None for the image's lowest."""

    weak_top: float = 0.025
    """Share of points that count as weak."""
    weak_value: float = 1.5
    """Their score; all other points have 1."""
    weak_scope: Scope = "image"
    """Rank the levels of an image together, each level for itself, or all images together."""
    weak_area: Literal["points", "boxes"] = "points"
    """Whether points are weak, or all that lies in their boxes."""
    nms: Literal["before", "after", "spatial", "none"] = "before"
    """Suppress overlapping weak points before or after the share is taken; or those beside which a
    weaker one lies; or none."""
    nms_iou: float = 0.6
    """Overlap from which one box suppresses another."""

    ring: float = 0.5
    """Width of the vicinity of an object, as a share of its width and height, or in cells."""
    vicinity: masks.Vicinity = "box"
    """Its form: a larger box, one with round corners, or a box that is larger by `ring` cells."""
    decay: masks.Decay = "inward"
    """`outward` is the formula as printed."""
    origin: masks.Origin = "border"
    """Where the distance to an object is measured from."""
    reach: masks.Reach = "corner"
    """The distance at which nothing is left: that of the vicinity's corner, or the largest that is
    observed."""

    tiers: tuple[float, float] = (1.0, 0.01)
    """Least value of the high and of the medium tier."""
    gains: tuple[float, float, float] = (1.0, 0.7, 0.05)
    """Multiplies the value in the high, medium and low tier."""
    graded: bool = True
    """Otherwise a tier's gain is all that its points are weighted by."""

    def fit(self, teacher: Spec, student: Spec) -> None:
        """Chooses the thresholds of overlap.

        Raises:
            UnsuitablePairError: anchors are asked for, and there are none.
        """
        if self.overlap_of == "anchors" or self.thresholds == "adaptive":
            needs_anchors("tid", teacher)
            needs_anchors("tid", student)
        right, wrong = (0.7, 0.3) if student.family == "region" else (0.5, 0.4)
        self.right = right if self.positive_iou is None else self.positive_iou
        self.wrong = wrong if self.negative_iou is None else self.negative_iou

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def values(self, step: Step) -> ValueMap:
        """What every point of the teacher is worth: key times weak times near."""
        said = step.teacher.dense
        teacher, student = self.standing(step.teacher, step), self.standing(step.student, step)
        reached = at_points_of(said, student.score, step.student.dense)
        key = self.key_score(teacher)
        weak = self.weak_points(teacher, reached, said)
        near = self.nearness(said, step)
        value = key * torch.where(weak, self.weak_value, 1.0) * near
        return ValueMap(teacher, student, key, weak, near, value, *self.tiers_of(value))

    def standing(self, output: DetectorOutput, step: Step) -> Standing:
        """How well one of the two detects at every point of its own."""
        said = output.dense
        sizes = _sizes(said.logits)
        prob = said.probabilities().unflatten(1, (sum(sizes), -1))
        truth = _of_one_class(step.truth) if prob.shape[-1] == 1 else step.truth
        quality = masks.point_quality(
            prob,
            self._boxes(said).unflatten(1, (sum(sizes), -1)),
            truth,
            self.class_score,
            seen=self._seen(said, step),
        )
        box, cls = self._box_score(quality, said, step), self._class_score(quality, sizes, truth)
        return Standing(quality, box * cls if self.combine == "product" else box + cls)

    def key_score(self, teacher: Standing) -> Tensor:
        """(B, P) the teacher's score where it counts."""
        if self.key != "top":
            return teacher.score if self.key == "all" else torch.ones_like(teacher.score)
        top = masks.top_points(self.key_top, teacher.score, teacher.quality.score)
        lowest = teacher.score.amin(dim=1, keepdim=True)
        outside = lowest if self.key_outside is None else self.key_outside
        return torch.where(top, teacher.score, outside)

    def weak_points(self, teacher: Standing, score: Tensor, said: DensePredictions) -> Tensor:
        """(B, P) bool: where a student of this `score` lags behind the teacher, which said this."""
        lag, sizes = teacher.score - score, _sizes(said.logits)
        if self.nms == "spatial":
            lag = masks.peaks(lag, said.logits)
        weak = partial(
            masks.weak_points,
            fraction=self.weak_top,
            nms="none" if self.nms == "spatial" else self.nms,
            nms_iou=self.nms_iou,
        )
        box = teacher.quality.box
        maps = (lag, teacher.score, teacher.quality.score, box)
        found = _ranked(weak, self.weak_scope, sizes, *maps)
        if self.weak_area == "points":
            return found
        most = masks.count_of(self.weak_top, found.numel()) + len(sizes)
        rows = found.float().topk(min(most, found.shape[1]), dim=1).indices
        inside = masks.inside_any(_points(said), take(box, rows), take(found, rows))
        return found | inside

    def nearness(self, said: DensePredictions, step: Step) -> Tensor:
        """(B, P) how near every point is to an object, 0 to 1."""
        return masks.nearness(
            _points(said),
            step.truth,
            ring=self.ring,
            decay=self.decay,
            vicinity=self.vicinity,
            origin=self.origin,
            reach=self.reach,
            strides=_first_of_cells(said.flat_strides(), said),
            seen=self._seen(said, step),
        )

    def tiers_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P) each point's tier, 0 the high, and what its difference is weighted by."""
        high, medium = self.tiers
        tier = (value < high).long() + (value < min(high, medium)).long()
        gain = torch.stack(_numbers(value, *self.gains))[tier]
        return tier, value * gain if self.graded else gain

    def _boxes(self, said: DensePredictions) -> Tensor:
        """(B, N, 4) what is compared with the objects."""
        if self.overlap_of == "boxes":
            return said.decoded()
        return said.flat_priors().expand(len(said.logits[0]), -1, -1)

    def _seen(self, said: DensePredictions, step: Step) -> Tensor:
        sizes = _sizes(said.logits) if self.objects == "own" else None
        return masks.objects_seen(step.truth, sizes)

    def _box_score(self, quality: masks.PointQuality, said: DensePredictions, step: Step) -> Tensor:
        """(B, P) score of the box."""
        iou = quality.iou
        if self.raw_iou:
            return iou
        right, doubtful, wrong = _numbers(iou, *self.box_scores)
        if self.thresholds == "adaptive":
            counts = [len(level) for level in said.priors]
            limit = masks.adaptive_threshold(said.flat_priors(), counts, step.truth)
            limit = limit.gather(1, quality.match.clamp(min=0))
            return torch.where((quality.match >= 0) & (iou >= limit), right, wrong)
        score = torch.where(iou <= self.wrong, wrong, doubtful)
        return torch.where(iou >= self.right, right, score)

    def _class_score(self, quality: masks.PointQuality, sizes: list[int], truth: Truth) -> Tensor:
        """(B, P) score of the class."""
        if self.class_least is None:
            top = partial(masks.top_points, self.class_top)
            surest = _ranked(top, self.class_scope, sizes, quality.score)
        else:
            surest = quality.score >= self.class_least
        surest = surest & truth.valid.any(dim=1, keepdim=True)
        sure, other = _numbers(quality.iou, *self.class_scores)
        return torch.where(surest, sure, other)


def at_points_of(theirs: DensePredictions, flat: Tensor, mine: DensePredictions) -> Tensor:
    """(B, P) of the points of some predictions -> (B, P') of those of others, level by level."""
    levels = zip(unflatten(flat, mine.logits), theirs.logits, strict=True)
    return torch.cat([_nearest(level, like).flatten(1) for level, like in levels], dim=1)


def _nearest(level: Tensor, like: Tensor) -> Tensor:
    """(B, H, W) -> (B, H', W')."""
    return F.interpolate(level.unsqueeze(1), like.shape[-2:], mode="nearest").squeeze(1)


def _ranked(rank: Callable[..., Tensor], scope: Scope, sizes: list[int], *maps: Tensor) -> Tensor:
    """A ranking of (B, P, ...) maps, image by image, level by level or over the batch."""
    if scope == "batch":
        return rank(*(values.flatten(0, 1).unsqueeze(0) for values in maps)).view_as(maps[0])
    return masks.by_group(rank, sizes if scope == "level" else [sum(sizes)], *maps)


def _numbers(like: Tensor, *numbers: float) -> list[Tensor]:
    """Numbers in a tensor's precision, made on its device instead of copied there."""
    return [like.new_full((), number) for number in numbers]


def _of_one_class(truth: Truth) -> Truth:
    """The objects for a stage that does not tell them apart."""
    return replace(truth, labels=torch.zeros_like(truth.labels))


def _sizes(levels: Levels) -> list[int]:
    """Points of each level."""
    return [level.shape[-2] * level.shape[-1] for level in levels]


def _points(said: DensePredictions) -> Tensor:
    """(P, 2) centre of every cell's first prior."""
    return boxes.centers(_first_of_cells(said.flat_priors(), said))


def _first_of_cells(flat: Tensor, said: DensePredictions) -> Tensor:
    """(N, ...) of priors -> (P, ...) of the first prior of every cell."""
    return flat[:: len(flat) // sum(_sizes(said.logits))]
