"""Faster R-CNN: what is proposed, sampled and pooled, against loops and counts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.contract.test_detectors import truth_of
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import box_iou, nms, roi_align

from detdistill import detectors
from detdistill.detectors import Detector
from detdistill.detectors.region_architecture import Proposing, RegionArchitecture, Sampling
from detdistill.detectors.region_head import assign_regions, sample_regions
from detdistill.detectors.rpn import propose
from detdistill.detectors.sampling import sample
from detdistill.structures import Proposals

CLASSES = ("circle", "square", "star")
BACKGROUND = len(CLASSES)


def small(**changes: object) -> Detector:
    torch.manual_seed(0)
    architecture = detectors.describe("faster_rcnn-quick-w8", CLASSES)
    assert isinstance(architecture, RegionArchitecture)
    return detectors.from_architecture(dataclasses.replace(architecture, **changes))


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=generator)


def random_proposals(count: int = 40) -> Proposals:
    """Boxes of sides from 2 to 80; the last five of the second image are padding."""
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(2, count, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 2 + 78 * torch.rand(2, count, 2, generator=generator)], -1)
    valid = torch.ones(2, count, dtype=torch.bool)
    valid[1, -5:] = False
    return Proposals(boxes=boxes * valid.unsqueeze(-1), valid=valid)


def test_the_full_size_detector_is_torchvisions_but_for_boxes_of_background() -> None:
    with torch.device("meta"):
        detector = detectors.build("faster_rcnn-r50", [str(i) for i in range(80)])
        other = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)
    assert detector.spec.strides == (4, 8, 16, 32, 64)
    assert detector.spec.family == "region"
    assert detector.spec.pool_size == 7
    mine, theirs = (sum(p.numel() for p in net.parameters()) for net in (detector, other))
    assert mine == theirs - 4 * (1024 + 1)


def test_proposals_are_the_best_boxes_of_each_level_without_doubles() -> None:
    detector, sizes = small().eval(), torch.tensor([[64, 96], [64, 96]])
    settings = Proposing(per_level=20, nms_iou=0.5, per_image=30)
    rpn = detector(images(), sizes).dense
    proposals = propose(rpn, sizes, settings)
    scores, boxes = rpn.flat_logits().squeeze(-1), rpn.decoded().clamp(min=0)
    boxes = boxes.minimum(torch.tensor([96.0, 64, 96, 64]))
    for image in range(2):
        start, kept = 0, []
        for priors in rpn.priors:
            rows = start + scores[image, start : start + len(priors)].topk(20).indices
            rows = rows[(boxes[image, rows, 2:] > boxes[image, rows, :2]).all(dim=1)]
            kept.append(rows[nms(boxes[image, rows], scores[image, rows], 0.5)])
            start += len(priors)
        rows = torch.cat(kept)
        best = rows[scores[image, rows].argsort(descending=True)][:30]
        found = proposals.boxes[image, proposals.valid[image]]
        torch.testing.assert_close(found, boxes[image, best])


def test_a_region_is_pooled_from_the_level_of_its_size() -> None:
    detector = small().eval()
    neck, proposals = detector(images()).neck, random_proposals()
    features = detector.head.pool(neck, proposals).features
    finest, levels = detector.architecture.finest_scale, set()
    for image, number in torch.cartesian_prod(torch.arange(2), torch.arange(40)).tolist():
        box = proposals.boxes[image, number]
        if not proposals.valid[image, number]:
            assert not features[image, number].any()
            continue
        side = ((box[2] - box[0]) * (box[3] - box[1])).sqrt()
        level = int(side >= 2 * finest) + int(side >= 4 * finest)
        levels.add(level)
        expected = roi_align(
            neck[level][image : image + 1],
            [box.unsqueeze(0)],
            detector.spec.pool_size,
            spatial_scale=1 / detector.spec.strides[level],
            aligned=True,
        )
        torch.testing.assert_close(features[image, number], expected[0])
    assert {0, 1} <= levels


def test_a_sample_is_as_balanced_as_there_are_candidates() -> None:
    number = torch.arange(1000)
    positive = torch.stack([number < 200, number < 3, number < 0])
    background = torch.stack([number >= 200, number >= 500, number >= 990])
    drawn = sample(positive, background, Sampling(number=64, positive_share=0.25))
    assert (drawn & positive).sum(dim=1).tolist() == [16, 3, 0]
    assert (drawn & background).sum(dim=1).tolist() == [48, 61, 10]
    assert not drawn[~(positive | background)].any()


def test_a_sample_depends_on_the_random_state_alone() -> None:
    positive = torch.arange(1000).expand(2, -1) < 300

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return sample(positive, ~positive, Sampling(number=64, positive_share=0.5))

    assert drawn(0).equal(drawn(0))
    assert not drawn(0).equal(drawn(1))
    assert not drawn(0)[0].equal(drawn(0)[1])


def test_sampled_positives_overlap_their_objects_and_objects_are_among_them() -> None:
    truth = truth_of([[8.0, 8, 40, 40], [50.0, 10, 60, 20]], [[1.0, 2, 30, 50]])
    everything = Sampling(number=1000, positive_share=1.0)
    assigned = assign_regions(random_proposals(), truth, BACKGROUND)
    regions, labels, boxes = sample_regions(assigned, everything, BACKGROUND)
    positive = labels < BACKGROUND
    assert regions.valid.sum(dim=1).tolist() == [42, 36]
    assert not positive[~regions.valid].any()
    assert not regions.boxes[~regions.valid].any()
    assert not boxes[~positive].any()
    for image in range(2):
        objects = truth.boxes[image, truth.valid[image]]
        best = box_iou(regions.boxes[image, regions.valid[image]], objects).amax(dim=1)
        assert (best >= 0.5).equal(positive[image, regions.valid[image]])
        mine, wanted = regions.boxes[image, positive[image]], boxes[image, positive[image]]
        assert (box_iou(mine, wanted).diagonal() >= 0.5).all()
        assert all((mine == box).all(dim=1).any() for box in objects)


def test_an_object_without_extent_is_no_region() -> None:
    truth = truth_of([[8.0, 8, 8, 40]], [[1.0, 2, 30, 50]])
    detector = small()
    losses, targets = detector.criterion(detector(images(), truth.sizes), truth)
    assert all(loss.isfinite() for loss in losses.values())
    assert targets.regions is not None
    assert (targets.regions.labels[0] == BACKGROUND).all()


@pytest.mark.parametrize("part", ["rpn", "head", "neck", "backbone"])
def test_every_part_learns_also_without_objects(part: str) -> None:
    detector, truth = small(), truth_of([], [])
    losses, _ = detector.criterion(detector(images(), truth.sizes), truth)
    torch.stack(list(losses.values())).sum().backward()
    parameters = detector.get_submodule(part).parameters()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
