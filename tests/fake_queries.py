"""A made-up query detector, beside the one-stage ones of `fakes`."""

from __future__ import annotations

import torch
from torch import nn

from detdistill.boxes import from_centers
from detdistill.levels import Levels
from detdistill.structures import (
    DetectorOutput,
    EncoderTrace,
    Matches,
    QueryPredictions,
    Spec,
    Targets,
    Truth,
)

QUERIES = 6
STAGES = 2


def query_spec(*, classes: int, strides: tuple[int, ...], channels: int) -> Spec:
    """What is known of a small query detector."""
    return Spec(
        family="query",
        classes=tuple("abcdefgh"[:classes]),
        strides=strides,
        channels=channels,
        queries=QUERIES,
        stages=STAGES,
    )


class FakeQueryHead(nn.Module):
    """Queries that look at all cells at once, and predictors for each stage."""

    def __init__(self, facts: Spec) -> None:
        super().__init__()
        self.facts, self.stride = facts, facts.strides[0]
        width, stages = facts.channels, range(facts.stages)
        self.encoder = nn.Linear(width, width)
        self.queries = nn.Parameter(torch.randn(facts.queries, width))
        self.cls = nn.ModuleList(nn.Linear(width, len(facts.classes)) for _ in stages)
        self.box = nn.ModuleList(nn.Linear(width, 4) for _ in stages)

    def forward(self, neck: Levels, *, preactivation: bool = False) -> DetectorOutput:  # noqa: ARG002 - other heads have towers
        """Everything."""
        sizes = torch.tensor([neck[0].shape[-2:]]).expand(len(neck[0]), 2) * self.stride
        cells = torch.cat([level.flatten(2).transpose(1, 2) for level in neck], dim=1)
        trace = EncoderTrace(
            memory=self.encoder(cells),
            shapes=tuple((level.shape[2], level.shape[3]) for level in neck),
            valid_ratios=cells.new_ones(len(cells), len(neck), 2),
            padding=torch.zeros(cells.shape[:2], dtype=torch.bool),
            sizes=sizes,
        )
        return DetectorOutput(neck=neck, predictions=self.resume(trace), trace=trace)

    def resume(self, trace: EncoderTrace) -> QueryPredictions:
        logits, boxes = [], []
        hidden = self.queries.expand(len(trace.memory), -1, -1)
        scale = trace.sizes.flip(-1).repeat(1, 2).unsqueeze(1)
        for cls, box in zip(self.cls, self.box, strict=True):
            looks = (hidden @ trace.memory.mT).softmax(dim=-1)
            hidden = hidden + looks @ trace.memory
            logits.append(cls(hidden))
            boxes.append(from_centers(box(hidden).float().sigmoid()) * scale)
        return QueryPredictions(logits=tuple(logits), boxes=tuple(boxes))


def query_targets(objects: Truth, predictions: QueryPredictions, classes: int) -> Targets:
    """Query i has object i in the first stage, and query i + 1 in the next, where there is one."""
    stages, queries = len(predictions.logits), predictions.logits[0].shape[1]
    number = torch.arange(queries).unsqueeze(0) - torch.arange(stages).unsqueeze(1)
    slot = number.clamp(0, objects.valid.shape[1] - 1)
    matched = objects.valid[:, slot] & (number >= 0)
    labels = torch.where(matched, objects.labels[:, slot], classes).movedim(1, 0)
    boxes = (objects.boxes[:, slot] * matched.unsqueeze(-1)).movedim(1, 0)
    return Targets(
        labels=labels[-1],
        boxes=boxes[-1],
        weights=torch.ones(labels.shape[1:]),
        positives=(labels[-1] < classes).sum().clamp(min=1).float(),
        per_image=False,
        matches=Matches(labels=labels, boxes=boxes),
    )
