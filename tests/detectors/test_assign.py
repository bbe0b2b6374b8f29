"""Label assignment against a loop over objects, levels and priors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detdistill.boxes import centers, iou
from detdistill.detectors.assign import atss, fcos, max_iou
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


def everywhere() -> Tensor:
    return torch.ones(2, sum(COUNTS), dtype=torch.bool)


def slow_max_iou(truth: Truth, image: int) -> list[int]:
    """For each prior the object that it learns, -1 for background, -2 for neither."""
    objects = [g for g in range(truth.boxes.shape[1]) if truth.valid[image, g]]
    overlaps = {g: iou(priors(), truth.boxes[image, g]) for g in objects}
    owners = []
    for prior in range(sum(COUNTS)):
        best = max(objects, key=lambda g: float(overlaps[g][prior]), default=-1)
        value = float(overlaps[best][prior]) if objects else 0.0
        owner = best if value >= 0.5 else -1 if value < 0.4 else -2
        for g in objects:
            if overlaps[g][prior] == overlaps[g].max():
                owner = g
        owners.append(owner)
    return owners


@pytest.mark.parametrize(("seed", "objects"), [(0, 1), (1, 4), (2, 12)])
def test_max_iou_equals_its_definition(seed: int, objects: int) -> None:
    truth = random_truth(seed, objects)
    targets = max_iou(priors(), COUNTS, truth, inside=everywhere(), num_classes=CLASSES)
    for image in range(2):
        owner = slow_max_iou(truth, image)
        expected = [CLASSES if g < 0 else int(truth.labels[image, g]) for g in owner]
        assert targets.labels[image].tolist() == expected
        assert targets.weights[image].tolist() == [float(g > -2) for g in owner]


def test_max_iou_looks_for_the_best_prior_inside_the_image_only() -> None:
    truth, inside = random_truth(1, 4), everywhere()
    inside[:, : COUNTS[0]] = False
    targets = max_iou(priors(), COUNTS, truth, inside=inside, num_classes=CLASSES)
    assert (targets.labels[:, : COUNTS[0]] == CLASSES).all()
    assert (targets.weights[:, : COUNTS[0]] == 0).all()
    assert all((row < CLASSES).any() for row in targets.labels)


def slow_fcos(truth: Truth, image: int, radius: float | None) -> list[int]:
    """For each point the object that it learns, or -1, by the definition."""
    owners: list[int] = []
    ranges = [(8, -1.0, 12.0), (16, 12.0, 24.0), (32, 24.0, float("inf"))]
    per_point = [r for r, count in zip(ranges, COUNTS, strict=True) for _ in range(count)]
    for point, (stride, low, high) in zip(centers(priors()), per_point, strict=True):
        inside = []
        for g in range(truth.boxes.shape[1]):
            left, top, right, bottom = truth.boxes[image, g].tolist()
            x, y = point.tolist()
            edges = (x - left, y - top, right - x, bottom - y)
            middle = centers(truth.boxes[image, g])
            near = radius is None or float((point - middle).abs().max()) < radius * stride
            fits = min(edges) > 0 and low <= max(edges) <= high
            if truth.valid[image, g] and near and fits:
                inside.append(((right - left) * (bottom - top), g))
        owners.append(min(inside)[1] if inside else -1)
    return owners


@pytest.mark.parametrize("radius", [None, 0.6])
@pytest.mark.parametrize(("seed", "objects"), [(0, 1), (1, 4), (2, 12), (3, 0)])
def test_fcos_equals_its_definition(seed: int, objects: int, radius: float | None) -> None:
    truth = random_truth(seed, objects)
    targets = fcos(
        priors(),
        COUNTS,
        truth,
        inside=everywhere(),
        num_classes=CLASSES,
        strides=(8, 16, 32),
        limits=(12.0, 24.0),
        radius=radius,
    )
    positives = 0
    for image in range(2):
        owner = slow_fcos(truth, image, radius)
        expected = [CLASSES if g < 0 else int(truth.labels[image, g]) for g in owner]
        assert targets.labels[image].tolist() == expected
        positives += sum(g >= 0 for g in owner)
    assert targets.positives == max(positives, 1)


def test_crowded_priors_are_candidates_where_a_level_has_too_few_others() -> None:
    middle = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]])
    anchors = torch.cat([middle - 8, middle + 8], dim=1)
    corners = torch.tensor([[[4.0, 0.0, 11.0, 8.0], [12.0, -4.0, 28.0, 12.0]]])
    crowd = torch.tensor([[False, True]])
    truth = Truth(
        boxes=corners,
        labels=torch.zeros(1, 2, dtype=torch.long),
        valid=~crowd,
        crowd=crowd,
        sizes=torch.full((1, 2), 64),
    )
    everything = torch.ones(1, 3, dtype=torch.bool)

    def said(topk: int) -> Targets:
        settings = {"inside": everything, "num_classes": 1, "topk": topk, "ignore_above": 0.4}
        return atss(anchors, (3,), truth, **settings)  # type: ignore[arg-type]

    assert said(1).labels.tolist() == [[1, 1, 1]]
    assert said(1).weights.tolist() == [[1, 0, 0]]
    overlaps = iou(anchors, corners[0, 0])
    within = (centers(anchors)[:, 0] > 4.01) & (centers(anchors)[:, 0] < 10.99)
    assert torch.equal(
        said(3).labels[0] == 0, within & (overlaps >= overlaps.mean() + overlaps.std())
    )


def test_one_candidate_makes_no_threshold() -> None:
    prior = torch.tensor([[-32.0, -32.0, 32.0, 32.0]])
    truth = random_truth(0, 1)
    inside = torch.ones(2, 1, dtype=torch.bool)
    said = atss(prior, (1,), truth, inside=inside, num_classes=CLASSES)
    assert (said.labels == CLASSES).all()
