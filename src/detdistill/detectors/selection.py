"""Which predictions become detections: thresholds, suppression of duplicates, padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from detdistill.boxes import clipped
from detdistill.detectors.architecture import Selection
from detdistill.detectors.region_architecture import RegionSelection
from detdistill.losses import precise
from detdistill.structures import DensePredictions, Detections, RegionScores


@torch.no_grad()
def select(predictions: DensePredictions, sizes: Tensor, selection: Selection) -> Detections:
    """The best predictions of each image, clipped to its size.

    With a centerness branch, a detection's score is its class score times its centerness;
    candidates are chosen by class score alone. `Selection.joint` has it otherwise.

    Args:
        predictions: of a batch.
        sizes: (B, 2) heights and widths.
        selection: the thresholds.
    """
    scores, quality = class_and_quality(predictions, joint=selection.joint)
    boxes = predictions.decoded()
    counts = [len(level) for level in predictions.priors]
    found = [
        _of_image(s, q, clip_boxes_to_image(b, (int(h), int(w))), counts, selection)
        for s, q, b, (h, w) in zip(scores, quality, boxes, sizes.tolist(), strict=True)
    ]
    return _pad(found)


def class_and_quality(predictions: DensePredictions, *, joint: bool) -> tuple[Tensor, Tensor]:
    """Class scores (B, N, K), and what they are multiplied with once candidates are chosen (B, N).

    `joint` is that of `Selection`.
    """
    scores = predictions.flat_logits().float().sigmoid()
    if predictions.quality is None:
        return scores, torch.ones_like(scores[..., 0])
    quality = predictions.flat_quality().float().sigmoid()
    if joint:
        return (scores * quality.unsqueeze(-1)).sqrt(), torch.ones_like(quality)
    return scores, quality


def _of_image(
    scores: Tensor, quality: Tensor, boxes: Tensor, counts: list[int], selection: Selection
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels found among one image's (N, K) scores and (N, 4) boxes."""
    score, prior, label = _candidates(scores, counts, selection)
    score, box = score * quality[prior], boxes[prior]
    visible = (box[:, 2:] > box[:, :2]).all(dim=1)
    box, score, label = box[visible], score[visible], label[visible]
    keep = batched_nms(box, score, label, selection.nms_iou)[: selection.per_image]
    return box[keep], score[keep], label[keep]


def _candidates(
    scores: Tensor, counts: list[int], selection: Selection
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, priors and labels of the best (prior, class) pairs of each level."""
    kept_scores, kept_priors, kept_labels, start = [], [], [], 0
    for level in scores.split(counts):
        wanted = level > selection.min_score
        if level.numel() > selection.per_level:  # ties with the last of them are sorted out below
            wanted &= level >= level.flatten().topk(selection.per_level).values[-1]
        prior, label = wanted.nonzero(as_tuple=True)
        best = level[prior, label].sort(descending=True, stable=True)
        order = best.indices[: selection.per_level]
        kept_scores.append(best.values[: selection.per_level])
        kept_priors.append(prior[order] + start)
        kept_labels.append(label[order])
        start += len(level)
    return torch.cat(kept_scores), torch.cat(kept_priors), torch.cat(kept_labels)


@torch.no_grad()
def select_regions(scores: RegionScores, sizes: Tensor, selection: RegionSelection) -> Detections:
    """The best classes of the regions of each image, their boxes clipped to its size.

    Args:
        scores: of the regions of a batch.
        sizes: (B, 2) heights and widths.
        selection: the thresholds.
    """
    shares = precise(scores.logits).softmax(dim=-1)[..., :-1]
    shares = shares * scores.proposals.valid.unsqueeze(-1)
    boxes = clipped(scores.decoded(), sizes)
    return _pad([_of_regions(s, b, selection) for s, b in zip(shares, boxes, strict=True)])


def _of_regions(
    shares: Tensor, boxes: Tensor, selection: RegionSelection
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels found among one image's (P, K) shares and (P, K, 4) boxes."""
    region, label = (shares > selection.min_score).nonzero(as_tuple=True)
    box, score = boxes[region, label], shares[region, label]
    keep = batched_nms(box, score, label, selection.nms_iou)[: selection.per_image]
    return box[keep], score[keep], label[keep]


def _pad(found: list[tuple[Tensor, Tensor, Tensor]]) -> Detections:
    """Detections of several images, padded to the fullest."""
    boxes, scores, labels = (
        nn.utils.rnn.pad_sequence([image[i] for image in found], batch_first=True) for i in range(3)
    )
    counts = torch.tensor([len(image[1]) for image in found], device=scores.device)
    return Detections(boxes=boxes, scores=scores, labels=labels, counts=counts)
