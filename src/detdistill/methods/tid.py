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
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from detdistill import boxes, masks
from detdistill.losses import precise
from detdistill.methods.method import Method
from detdistill.methods.pair import Adapter, adapters, same_classes, same_strides
from detdistill.structures import DensePredictions, DetectorOutput, Reads, Spec, Step, unflatten

Scope = Literal["image", "level"]


class ValueMap(NamedTuple):
    """What every point of an image is worth, and why: (B, P) each, constant."""

    teacher: masks.PointQuality
    student: masks.PointQuality
    teacher_score: Tensor
    student_score: Tensor
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
    """`value` times the gain of its tier."""


class TID(Method):
    """Squared difference of the necks, weighted by the value of each cell."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "neck"
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

    positive_iou: float = 0.5
    """Overlap from which a cell's box counts as right."""
    negative_iou: float = 0.4
    """Overlap up to which it counts as wrong."""
    box_scores: tuple[float, float, float] = (2.0, 1.5, 0.4)
    """Score of a right, a doubtful and a wrong box."""
    class_scores: tuple[float, float] = (1.5, 1.0)
    """Score of the cells that are surest of the class, and of all others."""
    class_top: float = 0.025
    """Share of cells that are surest."""
    class_score: masks.ClassScore = "matched"
    """Whose probability ranks a cell: the class of the best overlapping object, of any object
    present in the image, or any class."""
    class_scope: Scope = "image"
    """Rank all levels together or each for itself."""
    combine: Literal["product", "sum"] = "product"
    """How the scores of box and class make one."""

    key: Literal["all", "top"] = "all"
    """Whether the teacher's score counts everywhere or only where it is highest."""
    key_top: float = 0.025
    """Share of cells that are highest."""
    key_outside: float = 1.0
    """Score outside of the highest."""

    weak_top: float = 0.025
    """Share of cells that count as weak."""
    weak_value: float = 1.5
    """Their score; all other cells have 1."""
    weak_scope: Scope = "image"
    """Rank all levels together or each for itself."""
    nms: Literal["before", "after", "none"] = "before"
    """Suppress overlapping weak cells before or after the share is taken, or not."""
    nms_iou: float = 0.6
    """Overlap from which one box suppresses another."""

    ring: float = 0.5
    """Width of the vicinity of an object, as a share of its width and height."""
    decay: masks.Decay = "inward"
    """`outward` is the formula as printed."""

    tiers: tuple[float, float] = (1.0, 0.01)
    """Least value of the high and of the medium tier."""
    gains: tuple[float, float, float] = (1.0, 0.7, 0.05)
    """Multiplies the value in the high, medium and low tier."""
    tier_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of the tiers' losses."""
    normaliser: Literal["tier", "all", "mask", "none"] = "tier"
    """Divide by the cells of the tier, all cells, or the sum of the mask, each times twice the
    channels; or not."""
    distance: Literal["l2", "l1"] = "l2"
    """Squared or absolute difference."""

    @property
    def reads(self) -> Reads:
        """The predictions of both."""
        return Reads(predictions=True)

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides and classes."""
        same_strides("tid", teacher, student)
        same_classes("tid", teacher, student)
        self.adapters = adapters("tid", self.adapter, teacher, student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        values = self.values(step)
        mask = unflatten(values.mask, step.student.neck)
        tier = unflatten(values.tier, step.student.neck)
        adapted = [
            adapt(level) for adapt, level in zip(self.adapters, step.student.neck, strict=True)
        ]
        levels = zip(adapted, step.teacher.neck, mask, tier, strict=True)
        return {f"level{i}": self._loss(step, *level) for i, level in enumerate(levels)}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def values(self, step: Step) -> ValueMap:
        """The value of every point of every image."""
        sizes = [level.shape[-2] * level.shape[-1] for level in step.student.neck]
        teacher = self._quality(step.teacher, step, sizes)
        student = self._quality(step.student, step, sizes)
        teacher_score = self._score(teacher, step, sizes)
        student_score = self._score(student, step, sizes)
        key = self._key(teacher_score, teacher.score)
        weak = masks.by_group(
            partial(masks.weak_points, fraction=self.weak_top, nms=self.nms, nms_iou=self.nms_iou),
            _groups(self.weak_scope, sizes),
            *(teacher_score - student_score, teacher_score, teacher.score, teacher.box),
        )
        points = _points(step.teacher.dense, sizes)
        near = masks.nearness(points, step.truth, ring=self.ring, decay=self.decay)
        value = key * torch.where(weak, self.weak_value, 1.0) * near
        high, medium = self.tiers
        tier = (value < high).long() + (value < min(high, medium)).long()
        mask = value * value.new_tensor(self.gains)[tier]
        return ValueMap(
            *(teacher, student, teacher_score, student_score, key, weak, near, value, tier, mask)
        )

    def _quality(self, output: DetectorOutput, step: Step, sizes: list[int]) -> masks.PointQuality:
        """How well one of the two detects at every point."""
        predictions, points = output.dense, sum(sizes)
        prob = precise(predictions.flat_logits()).sigmoid()
        return masks.point_quality(
            prob.unflatten(1, (points, -1)),
            predictions.decoded().unflatten(1, (points, -1)),
            step.truth,
            self.class_score,
        )

    def _score(self, quality: masks.PointQuality, step: Step, sizes: list[int]) -> Tensor:
        """(B, P) scores of both tasks in one."""
        right, doubtful, wrong = self.box_scores
        box = torch.where(quality.iou <= self.negative_iou, wrong, doubtful).to(quality.iou)
        box = torch.where(quality.iou >= self.positive_iou, right, box)
        top = masks.by_group(
            partial(masks.top_points, self.class_top),
            _groups(self.class_scope, sizes),
            quality.score,
        )
        top = top & step.truth.valid.any(dim=1, keepdim=True)
        sure, other = quality.iou.new_tensor(self.class_scores)
        cls = torch.where(top, sure, other)
        return box * cls if self.combine == "product" else box + cls

    def _key(self, score: Tensor, cls: Tensor) -> Tensor:
        """(B, P) the teacher's score where it counts."""
        if self.key == "all":
            return score
        return torch.where(masks.top_points(self.key_top, score, cls), score, self.key_outside)

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


def _groups(scope: Scope, sizes: list[int]) -> list[int]:
    """Sizes of the sets of points that are ranked together."""
    return sizes if scope == "level" else [sum(sizes)]


def _points(predictions: DensePredictions, sizes: list[int]) -> Tensor:
    """(P, 2) centre of every cell's first prior."""
    priors = (p[:: len(p) // size] for p, size in zip(predictions.priors, sizes, strict=True))
    return boxes.centers(torch.cat(list(priors)))
