"""GFL, ATSS, RetinaNet and FCOS: outputs, detections, assignment, losses and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tests.parity_cases.common import same_detections, stages_of
from tests.parity_cases.recording import EXACT, RAW, Folder, Recording
from torch import Tensor

from detdistill.boxes import centers, to_distances
from detdistill.detectors.architecture import Selection
from detdistill.detectors.dense import DenseDetector
from detdistill.detectors.retinanet import CODER
from detdistill.detectors.selection import select
from detdistill.interop.mmdet.parts import selection
from detdistill.interop.mmdet.section import Section
from detdistill.structures import DensePredictions, Targets, Truth

LOSSES = {"cls": "loss_cls", "box": "loss_bbox", "dfl": "loss_dfl", "centerness": "loss_centerness"}


def run(folder: Folder, case: str) -> None:
    """Compares all of one case."""
    detector = folder.load("checkpoint.pth")
    recording = Recording(folder, case)
    truth = recording.truth()
    recording.same_inputs(detector)
    _evaluated(recording, detector, truth)
    _trained(recording, detector, truth)
    recording.finish()


def _evaluated(recording: Recording, detector: DenseDetector, truth: Truth) -> None:
    """Maps and detections in evaluation mode."""
    with torch.no_grad(), stages_of(detector) as stages:
        output = detector.eval()(recording.images(detector), truth.sizes)
    said = output.dense
    recording.same_levels("backbone", stages)
    recording.same_levels("fpn", output.neck)
    recording.same_levels("eval.cls", said.logits)
    recording.same_levels("eval.reg", said.boxes)
    recording.same_levels("eval.ctr", said.quality)
    for name, chosen in _selections(recording.folder.config).items():
        if f"{name}.0.boxes" in recording:
            same_detections(recording, name, select(said, truth.sizes, chosen))


def _selections(config: Mapping[str, Any]) -> dict[str, Selection]:
    """How the recorded detections were chosen."""
    stock = config["test_cfg"]
    settings = {"det": stock, "det_strict": {**stock, **config.get("det_strict_overrides", {})}}
    return {name: selection(Section(values, "test_cfg")) for name, values in settings.items()}


def _trained(recording: Recording, detector: DenseDetector, truth: Truth) -> None:
    """Assignment, losses and gradients in training mode."""
    detector.train()
    output = detector(recording.images(detector), truth.sizes)
    recording.same_levels("train.reg", _as_trained(detector, output.dense))
    losses, targets = detector.criterion(output, truth)
    if "targets.points.0" in recording:
        _same_points(recording, detector, output.dense, targets)
    elif "targets.labels.0" in recording:
        _same_anchors(recording, detector, output.dense, targets, truth)
    recording.same_losses({LOSSES[name]: loss for name, loss in losses.items()})
    torch.stack([*losses.values()]).sum().backward()
    recording.same_gradients(detector)


def _as_trained(detector: DenseDetector, said: DensePredictions) -> list[Tensor]:
    """MMDetection's FCOS trains on distances in strides, where it was told so."""
    in_strides = detector.architecture.points.in_strides
    pairs = zip(said.boxes, said.strides, strict=True)
    return [boxes / stride if in_strides else boxes for boxes, stride in pairs]


def _same_anchors(
    recording: Recording,
    detector: DenseDetector,
    said: DensePredictions,
    targets: Targets,
    truth: Truth,
) -> None:
    """The object of each anchor, level by level."""
    counts = [len(level) for level in said.priors]
    inside = said.inside(truth.sizes)
    for i, flags in enumerate(inside):
        if f"targets.n_valid.{i}" in recording:
            recorded = recording[f"targets.n_valid.{i}"]
            found = torch.stack([level.sum() for level in flags.split(counts)])
            found = flags if len(recorded) == len(flags) else found
            recording.same(f"targets.n_valid.{i}", found, recorded, **EXACT)
    recording.same(
        "targets.avg_factor", targets.positives, recording["targets.avg_factor"], **EXACT
    )
    split = [t.split(counts, dim=1) for t in (targets.labels, targets.weights, targets.boxes)]
    for level, (labels, weights, boxes) in enumerate(zip(*split, strict=True)):
        recording.same("labels", labels, recording[f"targets.labels.{level}"], **EXACT)
        recording.same("weights", weights, recording[f"targets.label_weights.{level}"], **EXACT)
        positive = (labels < len(detector.spec.classes)).nonzero()
        recording.same("positives", positive, recording[f"targets.pos_index.{level}"], **EXACT)
        wanted = boxes[positive[:, 0], positive[:, 1]]
        if detector.architecture.family == "retinanet":
            wanted = CODER.encode(wanted, said.priors[level][positive[:, 1]])
        recorded = recording[f"targets.pos_bbox_targets.{level}"]
        recording.same("boxes of positives", wanted, recorded.reshape(-1, 4), **RAW)


def _same_points(
    recording: Recording, detector: DenseDetector, said: DensePredictions, targets: Targets
) -> None:
    """The object of each point, level by level, the images of a level one after the other."""
    counts = [len(level) for level in said.priors]
    pairs = zip(targets.labels.split(counts, 1), targets.boxes.split(counts, 1), strict=True)
    for level, (labels, boxes) in enumerate(pairs):
        points = centers(said.priors[level])
        recording.same("points", points, recording[f"targets.points.{level}"], **EXACT)
        recording.same("labels", labels.flatten(), recording[f"targets.labels.{level}"], **EXACT)
        unit = said.strides[level] if detector.architecture.points.in_strides else 1
        wanted = (to_distances(points.expand(len(labels), -1, -1), boxes) / unit).flatten(0, 1)
        positive = labels.flatten() < len(detector.spec.classes)
        recorded = recording[f"targets.bbox_targets.{level}"]
        recording.same("distances", wanted[positive], recorded[positive], **RAW)
