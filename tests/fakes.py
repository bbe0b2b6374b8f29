"""Made-up detectors' facts and outputs, for tests that need no detector, no image and no data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from tests.fake_queries import FakeQueryHead, query_spec, query_targets
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torchvision.ops import roi_align

from detdistill.boxes import DeltaCoder, DistanceCoder, DistributionCoder
from detdistill.levels import Levels, take
from detdistill.structures import (
    BoxCoder,
    DensePredictions,
    DetectorOutput,
    Matches,
    Proposals,
    QueryPredictions,
    RegionPredictions,
    Regions,
    RegionScores,
    RegionTrace,
    Spec,
    Step,
    Targets,
    Towers,
    Truth,
    local_mean,
)

Kind = Literal["gfl", "atss", "retinanet", "fcos", "rcnn", "query"]
BINS = 5
POOL = 2


def spec(
    kind: Kind = "gfl",
    *,
    classes: int = 3,
    strides: tuple[int, ...] = (8, 16, 32),
    channels: int = 8,
    depth: int = 2,
    tower_channels: int = 8,
) -> Spec:
    """What is known of a small detector."""
    if kind == "query":
        return query_spec(classes=classes, strides=strides, channels=channels)
    coders: dict[Kind, BoxCoder] = {
        "gfl": DistributionCoder(BINS),
        "atss": DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2)),
        "retinanet": DeltaCoder(),
        "fcos": DistanceCoder(),
        "rcnn": DeltaCoder(),
    }
    return Spec(
        family="region" if kind == "rcnn" else "dense",
        classes=tuple("abcdefgh"[:classes]),
        strides=strides,
        channels=channels,
        tower_depth=0 if kind == "rcnn" else depth,
        tower_channels=0 if kind == "rcnn" else tower_channels,
        priors_per_cell=3 if kind in ("retinanet", "rcnn") else 1,
        coder=coders[kind],
        bins=BINS if kind == "gfl" else None,
        quality=kind in ("atss", "fcos"),
        pool_size=POOL if kind == "rcnn" else 0,
    )


class FakeHead(nn.Module):
    """Two towers and their predictors, which can resume at every cut."""

    def __init__(self, facts: Spec) -> None:
        super().__init__()
        assert facts.coder is not None
        self.facts, self.coder, count = facts, facts.coder, facts.priors_per_cell
        widths = [facts.channels] + [facts.tower_channels] * facts.tower_depth
        pairs = list(pairwise(widths))
        self.cls_tower = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairs)
        self.reg_tower = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairs)
        self.cls = nn.Conv2d(widths[-1], count * len(facts.classes), 1)
        self.reg = nn.Conv2d(widths[-1], count * facts.coder.numbers, 1)
        self.quality = nn.Conv2d(widths[-1], count, 1) if facts.quality else None

    def forward(self, neck: Levels, *, preactivation: bool = False) -> DetectorOutput:
        """Everything, at every cut."""
        cls, cls_cuts = _climb(self.cls_tower, neck, preactivation=preactivation)
        reg, reg_cuts = _climb(self.reg_tower, neck, preactivation=preactivation)
        return DetectorOutput(
            neck=neck,
            predictions=self._predict(cls, reg),
            trace=Towers(cls=cls_cuts, reg=reg_cuts),
        )

    def resume(self, towers: Towers, *, start: int) -> DensePredictions:
        cls, _ = _climb(self.cls_tower[start:], towers.cls[start])
        reg, _ = _climb(self.reg_tower[start:], towers.reg[start])
        return self._predict(cls, reg)

    def _predict(self, cls: Levels, reg: Levels) -> DensePredictions:
        boxes = tuple(map(self.reg, reg))
        if isinstance(self.coder, DistanceCoder):
            boxes = tuple(level.exp() * 8 for level in boxes)
        return DensePredictions(
            logits=tuple(map(self.cls, cls)),
            boxes=boxes,
            quality=tuple(map(self.quality, reg)) if self.quality is not None else None,
            priors=tuple(
                _priors(self.facts, level, s)
                for level, s in zip(cls, self.facts.strides, strict=True)
            ),
            strides=self.facts.strides,
            coder=self.coder,
        )


class FakeRegionHead(nn.Module):
    """Anchors and a second stage that looks at their best boxes on the finest level."""

    def __init__(self, facts: Spec) -> None:
        super().__init__()
        assert facts.coder is not None
        self.facts, self.coder = facts, facts.coder
        classes, pooled = len(facts.classes), facts.channels * facts.pool_size**2
        self.object = nn.Conv2d(facts.channels, facts.priors_per_cell, 1)
        self.shift = nn.Conv2d(facts.channels, facts.priors_per_cell * 4, 1)
        self.cls = nn.Linear(pooled, classes + 1)
        self.reg = nn.Linear(pooled, classes * 4)

    def forward(self, neck: Levels, *, preactivation: bool = False) -> DetectorOutput:  # noqa: ARG002
        """What the first stage says."""
        rpn = DensePredictions(
            logits=tuple(map(self.object, neck)),
            boxes=tuple(map(self.shift, neck)),
            priors=tuple(
                _priors(self.facts, level, s)
                for level, s in zip(neck, self.facts.strides, strict=True)
            ),
            strides=self.facts.strides,
            coder=self.coder,
        )
        best = rpn.flat_logits().squeeze(-1).topk(min(6, len(rpn.flat_priors()))).indices
        valid = torch.ones_like(best, dtype=torch.bool)
        valid[:, 1:] = torch.arange(1, best.shape[1]) < 5
        proposals = Proposals(boxes=take(rpn.decoded(), best).detach(), valid=valid)
        return DetectorOutput(
            neck=neck, predictions=RegionPredictions(rpn=rpn, proposals=proposals)
        )

    def pool(self, neck: Levels, proposals: Proposals) -> RegionTrace:
        boxes = list(proposals.boxes.float())
        scale = 1 / self.facts.strides[0]
        features = roi_align(neck[0].float(), boxes, self.facts.pool_size, scale)
        shaped = features.unflatten(0, proposals.valid.shape).to(neck[0])
        return RegionTrace(features=shaped, proposals=proposals)

    def resume(self, trace: RegionTrace) -> RegionScores:
        features = trace.features.flatten(2)
        return RegionScores(
            logits=self.cls(features),
            boxes=self.reg(features).unflatten(-1, (-1, 4)),
            proposals=trace.proposals,
            coder=self.coder,
        )

    def classify(self, neck: Levels, proposals: Proposals) -> RegionScores:
        return self.resume(self.pool(neck, proposals))


FakeAnyHead = FakeHead | FakeRegionHead | FakeQueryHead
HEADS: dict[str, type[FakeAnyHead]] = {
    "dense": FakeHead,
    "region": FakeRegionHead,
    "query": FakeQueryHead,
}


def fake_head(facts: Spec, dtype: torch.dtype = torch.float32) -> FakeAnyHead:
    """A head of the spec's family."""
    head = HEADS[facts.family](facts)
    return head if dtype == torch.float32 else head.to(dtype)


def _priors(facts: Spec, level: Tensor, stride: int) -> Tensor:
    """(H·W·A, 4) squares, or points as boxes without extent."""
    height, width = level.shape[-2:]
    rows, columns, sizes = (
        torch.arange(count, device=level.device) for count in (height, width, facts.priors_per_cell)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    middle = (torch.stack([x, y], dim=-1).reshape(-1, 1, 2) + 0.5) * stride
    sizes = (sizes + 1).view(1, -1, 1) * stride
    half = torch.zeros_like(sizes) if isinstance(facts.coder, DistanceCoder) else sizes
    return torch.cat([middle - half, middle + half], dim=-1).flatten(0, 1)


def _climb(
    tower: nn.ModuleList, levels: Levels, *, preactivation: bool = False
) -> tuple[Levels, dict[int, Levels]]:
    cuts = {0: levels}
    for i, block in enumerate(tower, 1):
        raw = tuple(map(block, levels))
        levels = tuple(map(F.relu, raw))
        cuts[i] = raw if preactivation else levels
    return levels, cuts


def truth(batch: int = 2, objects: int = 3, size: int = 64, classes: int = 3) -> Truth:
    """One large object, then each about half as large, in every image; the last slot is padding.

    Some background is left, and from a size of 320 on there are objects for three levels.
    """
    generator = torch.Generator().manual_seed(batch + objects)
    shares = 0.5 ** torch.arange(objects + 1).float().view(1, -1, 1)
    jitter = torch.rand(batch, objects + 1, 2, generator=generator)
    extent = (size * shares * (1 + jitter / 8)).clamp(min=4)
    extent[:, 0] = 0.75 * size
    corner = torch.rand(batch, objects + 1, 2, generator=generator) * (0.8 * size - extent)
    corner[:, 0] = 0
    valid = torch.ones(batch, objects + 1, dtype=torch.bool)
    valid[:, objects:] = False
    return Truth(
        boxes=torch.cat([corner, corner + extent], dim=-1),
        labels=torch.randint(classes, (batch, objects + 1), generator=generator),
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=torch.full((batch, 2), size),
    )


def targets(objects: Truth, predictions: DensePredictions, classes: int) -> Targets:
    """Every third prior is positive for some object, every seventh is ignored."""
    priors = predictions.flat_priors()
    batch, number = len(objects.boxes), torch.arange(len(priors))
    positive = (number % 3 == 0) & objects.valid.any(dim=1, keepdim=True)
    slot = (number % objects.valid.sum(dim=1, keepdim=True).clamp(min=1)).expand(batch, -1)
    boxes = objects.boxes.gather(1, slot.unsqueeze(-1).expand(-1, -1, 4))
    return Targets(
        labels=torch.where(positive, objects.labels.gather(1, slot), classes),
        boxes=boxes * positive.unsqueeze(-1),
        weights=(number % 7 != 0).float().expand(batch, -1),
        positives=positive.sum(dim=1).clamp(min=1).sum().float(),
    )


def regions(objects: Truth, neck: Levels, head: FakeRegionHead, proposals: Proposals) -> Regions:
    """The objects, each with its label, and the proposals, all background."""
    sampled = Proposals(
        boxes=torch.cat([objects.boxes, proposals.boxes], dim=1),
        valid=torch.cat([objects.valid, proposals.valid], dim=1),
    )
    trace = head.pool(neck, sampled)
    background, count = len(head.facts.classes), proposals.valid.shape[1]
    labels = objects.labels.masked_fill(~objects.valid, background)
    return Regions(
        trace=trace,
        scores=head.resume(trace),
        labels=F.pad(labels, (0, count), value=background),
        boxes=F.pad(objects.boxes * objects.valid.unsqueeze(-1), (0, 0, 0, count)),
    )


def assigned(objects: Truth, output: DetectorOutput, head: FakeAnyHead) -> Targets:
    """Targets of a head of any family; those of a first stage are of one class."""
    if isinstance(output.predictions, QueryPredictions):
        return query_targets(objects, output.predictions, len(head.facts.classes))
    if isinstance(head, FakeHead):
        return targets(objects, output.dense, len(head.facts.classes))
    alike = replace(objects, labels=torch.zeros_like(objects.labels))
    sampled = regions(objects, output.neck, head, output.regions.proposals)
    return replace(targets(alike, output.dense, 1), regions=sampled)


def without_positives(made: Targets, facts: Spec) -> Targets:
    """The same targets with background everywhere."""

    def blank(part: Regions | Matches | None, background: int) -> Any:
        if part is None:
            return None
        labels = torch.full_like(part.labels, background)
        return replace(part, labels=labels, boxes=torch.zeros_like(part.boxes))

    classes = len(facts.classes)
    return replace(
        made,
        labels=torch.full_like(made.labels, 1 if facts.family == "region" else classes),
        boxes=torch.zeros_like(made.boxes),
        positives=torch.ones_like(made.positives),
        regions=blank(made.regions, classes),
        matches=blank(made.matches, classes),
    )


@dataclass(frozen=True)
class Scene:
    """A step, and what its student's and teacher's outputs were computed from."""

    step: Step
    student_neck: Levels
    """Leaves: a gradient here is a gradient to the student."""
    teacher_neck: Levels
    student_head: FakeAnyHead
    teacher_head: FakeAnyHead


def detached(output: DetectorOutput) -> DetectorOutput:
    """The same numbers without their history, as the teacher's are in a step."""
    same: DetectorOutput = pytree.tree_map_only(Tensor, Tensor.detach, output)
    return same


def scene(
    student: Spec | None = None,
    teacher: Spec | None = None,
    *,
    batch: int = 2,
    size: int = 64,
    objects: int = 3,
    same: bool = False,
    preactivation: bool = False,
    dtype: torch.dtype = torch.float32,
    world_mean: Callable[[Tensor], Tensor] = local_mean,
    seed: int = 0,
) -> Scene:
    """A step of two made-up detectors; with `same`, the student says what the teacher says."""
    torch.manual_seed(seed)
    student = student or spec()
    teacher = teacher or student
    teacher_head = fake_head(teacher, dtype).requires_grad_(requires_grad=False)
    student_head = teacher_head if same else fake_head(student, dtype)
    teacher_neck = _neck(teacher, batch, size, dtype)
    student_neck = (
        tuple(level.detach().clone().requires_grad_() for level in teacher_neck)
        if same
        else _neck(student, batch, size, dtype)
    )
    output = student_head(student_neck, preactivation=preactivation)
    real = truth(batch, objects, size, len(student.classes))
    step = Step(
        truth=real,
        student=output,
        teacher=detached(teacher_head(teacher_neck, preactivation=preactivation)),
        targets=assigned(real, output, student_head),
        student_head=student_head,
        teacher_head=teacher_head,
        world_mean=world_mean,
    )
    return Scene(step, student_neck, teacher_neck, student_head, teacher_head)


def _neck(facts: Spec, batch: int, size: int, dtype: torch.dtype) -> Levels:
    return tuple(
        torch.randn(
            batch, facts.channels, -(-size // s), -(-size // s), dtype=dtype
        ).requires_grad_()
        for s in facts.strides
    )
