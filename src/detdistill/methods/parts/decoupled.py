"""DeFeat's three parts: neck, backbone and proposals, in each of which objects stand apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from detdistill import losses, masks
from detdistill.levels import Levels, cells_of
from detdistill.methods.method import Method
from detdistill.methods.parts import pair
from detdistill.methods.parts.necks import adapted, cell_errors, half_means
from detdistill.methods.parts.proposals import Whose, are_two_stage, shared
from detdistill.structures import DetectorOutput, Spec, Step

STAGES = 3
"""How many stages of the backbone are imitated, counted from the last."""


class DecoupledNeck(Method):
    """Half the mean squared difference of the necks, of objects' cells and of the others."""

    object_weight: float = 4.0
    """Of the neck's cells of objects, averaged over the levels."""
    background_weight: float = 16.0
    """Of the neck's other cells."""
    mask: Literal["boxes", "fine", "gaussian", "random", "none"] = "boxes"
    """Which cells are objects': those in the boxes, those whose anchors overlap an object well
    (FGFI), those in the boxes with less weight to the border (TADF), any, or all cells."""
    adapter: pair.Adapter = "auto"
    """Layer between the student's neck and the comparison."""
    seed: int = 0
    """Chooses other cells and proposals where chance does."""

    def fit_neck(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides, and anchors for the fine mask."""
        pair.same_strides("defeat", teacher, student)
        if self.mask == "fine":
            pair.needs_anchors("defeat", student)
        self.strides = student.strides
        self.adapters = pair.adapters("defeat", self.adapter, teacher, student)

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """The cells of `objects` and of `background`."""
        objects = self.cells(step)
        return {"objects": objects, "background": _others(objects)}

    def neck_terms(self, step: Step) -> dict[str, Tensor]:
        """`object` and `background`; the latter is 0 without a mask."""
        errors = cell_errors(adapted(self.adapters, step))
        objects, background = _means(errors, self.cells(step), step)
        return {
            "object": self.object_weight * objects,
            "background": self.background_weight * background,
        }

    def cells(self, step: Step) -> Levels:
        """(B, H, W) per level, 1 on cells of objects, 0 on others; between them for `gaussian`."""
        neck, truth = step.student.neck, step.truth
        if self.mask == "none":
            return tuple(level.new_ones(level[:, 0].shape) for level in neck)
        if self.mask == "fine":
            found = cells_of(masks.fine_grained(step.student.dense.priors, truth), neck)
        elif self.mask == "gaussian":
            found = masks.pyramid(masks.gaussian_cells, truth, neck, self.strides)
        else:
            found = masks.pyramid(masks.object_cells, truth, neck, self.strides)
        if self.mask == "random":
            key = (self.seed, step.index)
            found = tuple(masks.scattered(cell, *key, i) for i, cell in enumerate(found))
        return tuple(cell.to(neck[0]) for cell in found)


class DecoupledBackbone(Method):
    """The same of the last stages of the backbones."""

    backbone: bool = False
    """Whether the last three stages of the backbone are imitated too."""
    backbone_object_weight: float = 4.0
    """Of their cells of objects, averaged over the stages."""
    backbone_background_weight: float = 16.0
    """Of their other cells."""
    backbone_adapter: pair.Adapter = "auto"
    """Layer, with a ReLU behind it, between the student's stages and the comparison."""

    def fit_backbone(self, teacher: Spec, student: Spec) -> None:
        """Needs enough stages."""
        self.finest = student.strides[0]
        if self.backbone:
            self.backbone_adapters = pair.backbone_adapters(
                "defeat", self.backbone_adapter, STAGES, teacher=teacher, student=student
            )

    def backbone_terms(self, step: Step) -> dict[str, Tensor]:
        """`backbone_object` and `backbone_background`; the cells are those of all objects."""
        if not self.backbone:
            return {}
        student, teacher = (_last_stages(output) for output in (step.student, step.teacher))
        layers = zip(self.backbone_adapters, student, teacher, strict=True)
        errors = cell_errors((adapt(mine), theirs) for adapt, mine, theirs in layers)
        height, width = step.student.neck[0].shape[-2:]
        whole = masks.object_cells(step.truth, (height, width), self.finest)
        cells = tuple(_nearest(whole, stage) for stage in student)
        objects, background = _means(errors, cells, step)
        return {
            "backbone_object": self.backbone_object_weight * objects,
            "backbone_background": self.backbone_background_weight * background,
        }


class DecoupledProposals(Method):
    """Divergence of the class scores of proposals, of those of an object and of the others."""

    proposals: Literal["teacher", "student", "none"] = "teacher"
    """Whose proposals both second stages look at, in two-stage detectors."""
    positive_weight: float = 0.05
    """Of proposals of an object."""
    negative_weight: float = 2.0
    """Of proposals of none."""
    positive_temperature: float = 3.0
    """Of the class scores of proposals of an object."""
    negative_temperature: float = 1.0
    """Of the class scores of proposals of none."""
    negatives: Literal["all", "sampled"] = "all"
    """All proposals of no object, or, by chance, as many as there are of objects."""
    apart: bool = True
    """Whether the two kinds of proposals are averaged apart, not all together."""
    count: int = 512
    """Proposals of each image."""

    def fit_proposals(self, teacher: Spec, student: Spec) -> None:
        """Needs equal classes, if both detectors have a second stage."""
        self.looks: Whose | None = None
        if self.proposals != "none" and are_two_stage(teacher, student):
            pair.same_classes("defeat", teacher, student)
            self.looks = self.proposals

    def proposal_terms(self, step: Step, seed: int) -> dict[str, Tensor]:
        """`positive` and `negative`."""
        if self.looks is None:
            return {}
        both = shared(step, self.looks, self.count)
        negative = both.negative
        if self.negatives == "sampled":
            negative = masks.as_many(negative, both.positive, seed, step.index)
        return self.divergences(
            both.student.logits, both.teacher.logits, (both.positive, negative), step
        )

    def divergences(
        self, student: Tensor, teacher: Tensor, kinds: tuple[Tensor, Tensor], step: Step
    ) -> dict[str, Tensor]:
        """`positive` and `negative` of class scores (..., K + 1); who is which, (...) bool each."""
        sizes = [step.world_mean(kind.to(student).sum()) for kind in kinds]
        if not self.apart:
            sizes = [sizes[0] + sizes[1]] * 2
        temperatures = (self.positive_temperature, self.negative_temperature)
        positive, negative = (
            (losses.kl_divergence(student, teacher, temperature) * kind).sum() / size.clamp(min=1)
            for temperature, kind, size in zip(temperatures, kinds, sizes, strict=True)
        )
        return {
            "positive": self.positive_weight * positive,
            "negative": self.negative_weight * negative,
        }


def _means(errors: Levels, objects: Levels, step: Step) -> tuple[Tensor, Tensor]:
    """Half the mean over the cells of objects and over the others, averaged over the maps."""
    parts = (objects, _others(objects))
    mine, others = (half_means(errors, cells, step).mean() for cells in parts)
    return mine, others


def _others(cells: Levels) -> Levels:
    """What is left of every cell."""
    return tuple(1 - cell for cell in cells)


def _last_stages(output: DetectorOutput) -> Levels:
    """Of the backbone."""
    if output.backbone is None:
        raise LookupError("the backbone was not asked for: declare Reads(backbone=True)")
    return output.backbone[-STAGES:]


def _nearest(cells: Tensor, like: Tensor) -> Tensor:
    """(B, H, W) bool to the size of a map, 1 or 0."""
    return F.interpolate(cells.to(like).unsqueeze(1), like.shape[-2:], mode="nearest").squeeze(1)
