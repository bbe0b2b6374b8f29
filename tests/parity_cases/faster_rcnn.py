"""Faster R-CNN: both stages, proposals, detections, samples, losses and gradients."""

from __future__ import annotations

import torch
from tests.parity_cases.common import matched, same_detections, stages_of
from tests.parity_cases.recording import (
    BOX_ERROR,
    EXACT,
    RAW,
    SCORE_ERROR,
    Folder,
    Recording,
)
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detdistill.boxes import clipped
from detdistill.detectors.faster_rcnn import FasterRCNN
from detdistill.detectors.rpn import OBJECT
from detdistill.structures import DensePredictions, DetectorOutput, Proposals, Targets, Truth

LOSSES = {
    "rpn_cls": "loss_rpn_cls",
    "rpn_box": "loss_rpn_bbox",
    "cls": "loss_cls",
    "box": "loss_bbox",
}


def run(folder: Folder, case: str) -> None:
    """Compares all of one case."""
    detector = folder.load("checkpoint.pth")
    recording = Recording(folder, case)
    truth = recording.truth()
    recording.same_inputs(detector)
    _evaluated(recording, detector, truth)
    _trained(recording, detector, truth)
    recording.finish()


def _evaluated(recording: Recording, detector: FasterRCNN, truth: Truth) -> None:
    """Maps, proposals, what the second stage says of the recorded ones, detections."""
    with torch.no_grad(), stages_of(detector) as stages:
        output = detector.eval()(recording.images(detector), truth.sizes)
        recording.same_levels("backbone", stages)
        recording.same_levels("fpn", output.neck)
        recording.same_levels("rpn_cls", output.regions.rpn.logits)
        recording.same_levels("rpn_reg", output.regions.rpn.boxes)
        if "rois" in recording:
            _same_proposals(recording, output, truth)
            _same_second_stage(recording, detector, output)
            same_detections(recording, "det", detector.detect(output, truth.sizes))


def _same_proposals(recording: Recording, output: DetectorOutput, truth: Truth) -> None:
    """Each recorded proposal must be met by one of ours, in place and score."""
    proposals = output.regions.proposals
    everything = clipped(output.regions.rpn.decoded(), truth.sizes)
    scores = output.regions.rpn.flat_logits().squeeze(-1).sigmoid()
    for i, valid in enumerate(proposals.valid):
        found = proposals.boxes[i][valid]
        anchor = (found.unsqueeze(1) == everything[i]).all(dim=-1)
        said = torch.where(anchor, scores[i], 0).amax(dim=1)
        boxes, sure = (recording[f"proposals.{i}.{key}"] for key in ("boxes", "scores"))
        close = (found.unsqueeze(1) - boxes).abs().amax(dim=-1) < BOX_ERROR
        unmet = len(boxes) - matched(close & ((said.unsqueeze(1) - sure).abs() < SCORE_ERROR))
        if unmet or len(found) != len(boxes):
            recording.differences.append(f"{unmet} of proposals.{i} have no counterpart")


def _same_second_stage(recording: Recording, detector: FasterRCNN, output: DetectorOutput) -> None:
    """Pooled features, logits and boxes of the recorded regions, image by image."""
    rois = recording["rois"]
    images = [rois[rois[:, 0] == i, 1:] for i in range(len(output.neck[0]))]
    proposals = Proposals(
        boxes=pad_sequence(images, batch_first=True),
        valid=pad_sequence(
            [torch.ones(len(b), dtype=torch.bool) for b in images], batch_first=True
        ),
    )
    trace = detector.head.pool(output.neck, proposals)
    scores = detector.head.resume(trace)
    valid, first = proposals.valid, recording["roi_feats_head8"]
    recording.same("roi_feats_head8", trace.features[valid][: len(first)], first, **RAW)
    recording.same("roi_cls", scores.logits[valid], recording["roi_cls"], **RAW)
    recording.same("roi_reg", scores.boxes.flatten(2)[valid], recording["roi_reg"], **RAW)


def _trained(recording: Recording, detector: FasterRCNN, truth: Truth) -> None:
    """Samples, losses and gradients in training mode."""
    detector.train()
    output = detector(recording.images(detector), truth.sizes)
    losses, targets = detector.criterion(output, truth)
    for i in range(len(truth.boxes)):
        _same_anchors(recording, i, output.regions.rpn, targets, truth)
        _same_regions(recording, i, targets, truth)
    _same_accuracy(recording, targets)
    recording.same_losses({LOSSES[name]: loss for name, loss in losses.items()})
    torch.stack([*losses.values()]).sum().backward()
    recording.same_gradients(detector)


def _same_anchors(
    recording: Recording, i: int, rpn: DensePredictions, targets: Targets, truth: Truth
) -> None:
    """The first stage's sample: numbers of anchors among those in the image."""
    inside = rpn.inside(truth.sizes)[i]
    positive = (targets.labels[i] == OBJECT)[inside]
    background = ~positive & (targets.weights[i] > 0)[inside]
    for name, chosen in (("pos", positive), ("neg", background)):
        _same_numbers(recording, f"sample.rpn.{i}.{name}_inds", chosen.nonzero().squeeze(1))


def _same_regions(recording: Recording, i: int, targets: Targets, truth: Truth) -> None:
    """The second stage's sample: numbers among an image's objects and proposals, and boxes."""
    regions = targets.regions
    valid = regions.scores.proposals.valid[i]
    boxes, labels = regions.scores.proposals.boxes[i][valid], regions.labels[i][valid]
    positive = labels < regions.scores.boxes.shape[2]
    place = f"sample.rcnn.{i}"
    for name, chosen in (("pos", positive), ("neg", ~positive)):
        _same_numbers(recording, f"{place}.{name}_inds", chosen.nonzero().squeeze(1))
        recorded = recording[f"{place}.{name}_boxes"].reshape(-1, 4)
        recording.same(f"{place}.{name}_boxes", boxes[chosen], recorded, **RAW)
    if f"{place}.pos_gt_inds" in recording:
        owner = truth.boxes[i][recording[f"{place}.pos_gt_inds"].long()]
        found = regions.boxes[i][valid][positive]
        recording.same(f"{place}.pos_gt_inds", found, owner.reshape(-1, 4), **EXACT)


def _same_numbers(recording: Recording, name: str, found: Tensor) -> None:
    recording.same(name, found, recording[name].sort().values, **EXACT)


def _same_accuracy(recording: Recording, targets: Targets) -> None:
    """Percent of the sampled regions whose class is right; no loss."""
    if "loss.acc" in recording:
        scores = targets.regions.scores
        right = scores.logits.argmax(dim=-1) == targets.regions.labels
        percent = 100 * right[scores.proposals.valid].double().mean()
        recording.same("acc", percent, recording["loss.acc"], **RAW)
