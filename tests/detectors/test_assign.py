"""Label assignment against a loop over objects, levels and priors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detdistill.boxes import centers, iou
from detdistill.detectors.assign import atss
from detdistill.structures import Targets, Truth

COUNTS = (64, 16, 4)
CLASSES = 5


def priors() -> Tensor:
    squares = []
    for stride, cells in zip((8, 16, 32), (8, 4, 2), strict=True):
        y, x = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
        middle = torch.stack([x, y], dim=-1).reshape(-1, 2).float() * stride
        squares.append(torch.cat([middle - 2.5 * stride, middle + 2.5 * stride], dim=1))
    return torch.cat(squares)


def random_truth(seed: int, objects: int) -> Truth:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, objects, 2, generator=generator) * 45
    size = torch.rand(2, objects, 2, generator=generator) * 35 + 3
    valid = torch.rand(2, objects, generator=generator) > 0.3
    return Truth(
        boxes=torch.cat([corner, corner + size], dim=-1),
        labels=torch.randint(0, CLASSES, (2, objects), generator=generator),
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=torch.full((2, 2), 64),
    )


def assign(truth: Truth, inside: Tensor | None = None) -> Targets:
    everything = torch.ones(len(truth.boxes), sum(COUNTS), dtype=torch.bool)
    return atss(
        priors(),
        COUNTS,
        truth,
        inside=everything if inside is None else inside,
        num_classes=CLASSES,
    )


def slow_owner(truth: Truth, image: int) -> list[int]:
    """For each prior the object that it learns, or -1, by the definition."""
    anchors, owner, best = priors(), [-1] * sum(COUNTS), [0.0] * sum(COUNTS)
    for g in range(truth.boxes.shape[1]):
        if not truth.valid[image, g]:
            continue
        box, candidates, start = truth.boxes[image, g], [], 0
        distance = (centers(anchors) - centers(box)).norm(dim=1)
        for count in COUNTS:
            level = distance[start : start + count]
            candidates += (level.argsort(stable=True)[:9] + start).tolist()
            start += count
        overlaps = iou(anchors[candidates], box)
        threshold = overlaps.mean() + overlaps.std()
        for prior, overlap in zip(candidates, overlaps, strict=True):
            x, y = centers(anchors[prior]).tolist()
            left, top, right, bottom = box.tolist()
            within = min(x - left, y - top, right - x, bottom - y) > 0.01
            if within and overlap >= threshold and overlap > best[prior]:
                owner[prior], best[prior] = g, float(overlap)
    return owner


@pytest.mark.parametrize(("seed", "objects"), [(0, 1), (1, 4), (2, 12)])
def test_atss_equals_its_definition(seed: int, objects: int) -> None:
    truth = random_truth(seed, objects)
    targets = assign(truth)
    for image in range(2):
        owner = slow_owner(truth, image)
        expected = [CLASSES if g < 0 else int(truth.labels[image, g]) for g in owner]
        assert targets.labels[image].tolist() == expected
        for prior, g in enumerate(owner):
            box = torch.zeros(4) if g < 0 else truth.boxes[image, g]
            assert torch.equal(targets.boxes[image, prior], box)


def test_the_rows_hold_every_positive() -> None:
    targets = assign(random_truth(3, 2))
    assert targets.rows is not None
    positive = targets.labels < CLASSES
    assert torch.equal(positive.gather(1, targets.rows).sum(dim=1), positive.sum(dim=1))


def test_the_normaliser_counts_at_least_one_prior_per_image() -> None:
    truth = random_truth(4, 3)
    truth.valid[0] = False
    targets = assign(truth)
    assert targets.positives == 1 + (targets.labels[1] < CLASSES).sum()


def test_a_batch_without_any_object_slot_is_background() -> None:
    targets = assign(random_truth(5, 0))
    assert (targets.labels == CLASSES).all()
    assert targets.positives == 2


def test_priors_outside_their_image_are_never_positive() -> None:
    inside = torch.ones(2, sum(COUNTS), dtype=torch.bool)
    inside[:, -COUNTS[2] :] = False
    targets = assign(random_truth(6, 12), inside)
    assert (targets.labels[:, -COUNTS[2] :] == CLASSES).all()
    assert (targets.weights[:, -COUNTS[2] :] == 0).all()
    assert (targets.labels < CLASSES).any()
