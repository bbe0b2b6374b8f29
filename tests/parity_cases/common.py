"""What detectors of all families are compared by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tests.parity_cases.recording import BOX_ERROR, SCORE_ERROR, Recording
from torch import Tensor, nn

from detdistill.detectors import Detector
from detdistill.structures import Detections


@contextmanager
def stages_of(detector: Detector) -> Iterator[list[Tensor]]:
    """Collects what the stages of a ResNet put out, those that are not read included."""
    found: list[Tensor] = []
    stages = [m for name, m in detector.backbone.named_children() if name.startswith("layer")]

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        found.append(output)

    hooks = [stage.register_forward_hook(keep) for stage in stages]
    yield found
    for hook in hooks:
        hook.remove()


def same_detections(recording: Recording, name: str, found: Detections) -> None:
    """Each recorded detection must be met by one of ours, of its class, place and score."""
    for i, count in enumerate(found.counts.tolist()):
        boxes, scores, labels = (
            recording[f"{name}.{i}.{k}"] for k in ("boxes", "scores", "labels")
        )
        if count != len(labels):
            recording.differences.append(f"{name}.{i} are {count}, not {len(labels)}")
            continue
        fits = (
            (found.labels[i, :count, None] == labels)
            & ((found.scores[i, :count, None] - scores).abs() < SCORE_ERROR)
            & ((found.boxes[i, :count, None] - boxes).abs().amax(dim=-1) < BOX_ERROR)
        )
        unmet = count - matched(fits)
        if unmet:
            recording.differences.append(f"{unmet} of {name}.{i} have no counterpart")


def matched(fits: Tensor) -> int:
    """How many rows of (N, M) bool find a column of their own, taken in order."""
    free = torch.ones(fits.shape[1], dtype=torch.bool)
    for row in fits:
        choice = (row & free).nonzero()
        if len(choice):
            free[choice[0]] = False
    return int((~free).sum())
