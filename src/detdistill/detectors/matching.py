"""Which query learns which object: the cheapest pairing of all."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from detdistill.boxes import extents, giou, to_centers
from detdistill.losses import precise
from detdistill.structures import Matches, QueryPredictions, Truth

CLASS_COST = 2.0
BOX_COST = 5.0
GIOU_COST = 2.0
ALPHA, GAMMA = 0.25, 2.0
HOPELESS = 1e6
"""The cost of a pair for which the network computed no number."""


@torch.no_grad()
def match(predictions: QueryPredictions, truth: Truth) -> Matches:
    """Pairs every object with one query of each stage, so that their costs sum to the least.

    All stages and images go to the host in one transfer. Objects that are more than the queries
    go without.

    Source: Carion et al., "End-to-End Object Detection with Transformers", section 3.1; the class
    cost is that of Zhu et al., "Deformable DETR", section 4.3.
    """
    paid = costs(torch.stack(predictions.logits), torch.stack(predictions.boxes), truth)
    paid = paid.nan_to_num(nan=HOPELESS, posinf=HOPELESS, neginf=-HOPELESS)
    slots = _cheapest(paid.masked_fill(~truth.valid.unsqueeze(1), torch.inf))
    return _matches(slots, truth, num_classes=predictions.logits[0].shape[-1])


def costs(logits: Tensor, boxes: Tensor, truth: Truth) -> Tensor:
    """What it costs to give a query an object: (T, B, Q, K) and (T, B, Q, 4) -> (T, B, Q, G)."""
    logits, boxes = precise(logits), precise(boxes)
    share = logits.sigmoid()
    found = ALPHA * (1 - share).pow(GAMMA) * F.softplus(-logits)
    missed = (1 - ALPHA) * share.pow(GAMMA) * F.softplus(logits)
    labels = truth.labels.clamp(0, logits.shape[-1] - 1).unsqueeze(1)
    of_class = (found - missed).gather(-1, labels.expand(*logits.shape[:3], -1))
    distance = torch.cdist(as_shares(boxes, truth), as_shares(truth.boxes, truth), p=1)
    overlap = giou(boxes.unsqueeze(-2), truth.boxes.unsqueeze(1))
    return CLASS_COST * of_class + BOX_COST * distance - GIOU_COST * overlap


def as_shares(boxes: Tensor, truth: Truth) -> Tensor:
    """Boxes (..., B, n, 4) in pixels -> centre and extent as shares of the images' sizes."""
    return to_centers(boxes) / extents(truth.sizes)


@torch.compiler.disable  # type: ignore[untyped-decorator] # SciPy is beyond what it compiles
def _cheapest(paid: Tensor) -> Tensor:
    """Costs (T, B, Q, G), infinite for padding -> (T, B, Q) slot of each query's object, or G."""
    pairings = paid.flatten(0, 1).cpu().numpy()
    slots = np.full(pairings.shape[:2], paid.shape[-1])
    for slot, cost in zip(slots, pairings, strict=True):
        real = np.flatnonzero(np.isfinite(cost[0]))
        queries, objects = linear_sum_assignment(cost[:, real])
        slot[queries] = real[objects]
    return torch.from_numpy(slots).view(paid.shape[:3]).to(paid.device)


def _matches(slots: Tensor, truth: Truth, *, num_classes: int) -> Matches:
    """Labels and boxes of the objects in the slots (T, B, Q), of which one too many is nobody."""
    stages, batch, queries = slots.shape
    labels = F.pad(truth.labels, (0, 1), value=num_classes)
    boxes = F.pad(truth.boxes, (0, 0, 0, 1))
    row = torch.arange(batch, device=slots.device).view(1, -1, 1).expand(stages, -1, queries)
    return Matches(labels=labels[row, slots], boxes=boxes[row, slots])
