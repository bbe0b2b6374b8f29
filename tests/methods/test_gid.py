from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tests import fakes
from torch import Tensor
from torchvision.ops import roi_align

from detdistill import boxes, instances, losses
from detdistill.methods import UnsuitablePairError
from detdistill.methods.gid import GID
from detdistill.structures import Step


def made(facts: fakes.Spec | None = None, **settings: object) -> GID:
    method = GID(**settings)  # type: ignore[arg-type]
    method.setup(facts or fakes.spec(), facts or fakes.spec())
    return method


def chosen_one_by_one(step: Step, image: int, method: GID) -> list[Tensor]:
    """The boxes of one image, by a loop over all of them from the most different on."""
    ours, theirs = (o.dense.flat_logits()[image].sigmoid() for o in (step.student, step.teacher))
    best = ours.amax(dim=1), theirs.amax(dim=1)
    corners = [o.dense.decoded()[image] for o in (step.student, step.teacher)]
    found: list[Tensor] = []
    for prior in (best[0] - best[1]).abs().argsort(descending=True)[: method.candidates]:
        box = corners[int(best[1][prior] >= best[0][prior])][prior].clamp(0, 64)
        if (box[2:] - box[:2]).min() <= method.side or len(found) == method.count:
            continue
        if all(boxes.iou(box, other) <= method.overlap for other in found):
            found.append(box)
    return found


@pytest.mark.parametrize("settings", [{}, {"count": 4, "overlap": 0.1}, {"candidates": 9}])
def test_the_boxes_are_those_of_a_loop(settings: dict[str, float]) -> None:
    step, method = fakes.scene(seed=3).step, made(**settings)
    found, valid = method.selected(step)
    for image in range(2):
        wanted = torch.stack(chosen_one_by_one(step, image, method))
        torch.testing.assert_close(found[image][valid[image]], wanted)
        assert valid[image].sum() == len(wanted) > 1


def test_the_class_that_differs_most_may_be_another_than_the_best() -> None:
    step = fakes.scene().step
    both = step.student.dense, step.teacher.dense
    by_class, _ = instances.disagreement(*both, gap="class")
    by_best, _ = instances.disagreement(*both, gap="best")
    assert (by_class >= by_best - 1e-6).all()
    assert (by_class > by_best + 1e-3).any()


def test_a_box_looks_at_the_level_of_its_size() -> None:
    neck = tuple(torch.randn(2, 3, 512 // s, 512 // s, dtype=torch.float64) for s in (8, 16, 32))
    sides = torch.tensor([[20.0, 111, 113], [223, 225, 450]], dtype=torch.float64)
    corners = torch.stack([sides * 0 + 5, sides * 0 + 7, sides + 5, sides + 7], dim=-1)
    found = instances.pooled(neck, (8, 16, 32), corners, size=4).unflatten(0, (2, 3))
    for image, slot in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]:
        level = min(max(4 + math.floor(math.log2(sides[image, slot] / 224)) - 3, 0), 2)
        wanted = roi_align(
            neck[level][image : image + 1],
            [corners[image, slot : slot + 1]],
            4,
            spatial_scale=1 / (8, 16, 32)[level],
            aligned=True,
        )
        torch.testing.assert_close(found[image, slot], wanted[0])


def test_regions_and_their_gradients_are_those_of_roi_align() -> None:
    generator = torch.Generator().manual_seed(0)
    extents = ((52, 84), (26, 42), (13, 21))
    neck = tuple(
        torch.randn(1, 3, *extent, generator=generator, dtype=torch.float64, requires_grad=True)
        for extent in extents
    )
    strides, image = (2, 4, 8), torch.tensor([168.0, 104.0])
    spots = torch.rand(1, 40, 2, 2, generator=generator, dtype=torch.float64)
    corners = (spots.sort(dim=2).values * image).flatten(2)
    corners[0, 0] = torch.tensor([0.0, 0, 168, 104])
    found = instances.pooled(neck, strides, corners, size=5)
    sides = (corners[0, :, 2:] - corners[0, :, :2]).prod(dim=1).sqrt()
    levels = ((sides / 224).log2().floor() + 3).clamp(0, 2)
    wanted = torch.stack(
        [
            roi_align(neck[level], [box[None]], 5, 1 / strides[level], aligned=True)[0]
            for box, level in zip(corners[0], levels.int().tolist(), strict=True)
        ]
    )
    assert set(levels.tolist()) == {0, 1, 2}
    torch.testing.assert_close(found, wanted)
    pull = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    gradients = (
        torch.autograd.grad(maps, neck, pull, allow_unused=True, materialize_grads=True)
        for maps in (found, wanted)
    )
    torch.testing.assert_close(*gradients)


def test_no_boxes_are_no_regions() -> None:
    neck = (torch.ones(2, 3, 8, 8), torch.ones(2, 3, 4, 4))
    assert instances.pooled(neck, (8, 16), torch.zeros(2, 0, 4), size=2).shape == (0, 3, 2, 2)


def test_boxes_without_extent_hold_nothing() -> None:
    neck = (torch.ones(1, 2, 8, 8),)
    assert instances.pooled(neck, (8,), torch.zeros(1, 3, 4), size=2).abs().max() == 0


def test_a_prior_stands_for_a_box_if_it_overlaps_it_enough_or_most() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60], [90, 90, 91, 91]])
    found = torch.tensor([[[1.0, 0, 11, 10], [50, 50, 58, 54], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, True, False]])
    assert instances.matched(priors, found, valid, 0.5).tolist() == [[True, True, True, False]]
    assert instances.matched(priors, found, valid, 0.9).tolist() == [[True, True, True, False]]
    assert not instances.matched(priors, found, valid & False, 0.5).any()


def test_each_term_is_that_of_a_loop_over_boxes_and_priors() -> None:
    step, method = fakes.scene(dtype=torch.float64).step, made()
    found, valid = method.selected(step)
    real = valid.flatten()
    ours, theirs = (
        method.features(o.neck, found, step).detach()[real] for o in (step.student, step.teacher)
    )
    terms = {name: float(term.detach()) for name, term in method(step).items()}
    cells = len(ours) * 100
    assert terms["feature"] == pytest.approx(5e-4 * float((ours - theirs).pow(2).sum()) / cells)
    pairs = [(a, b) for a in range(len(ours)) for b in range(len(ours)) if a != b]
    away = [
        torch.stack([(side[a] - side[b]).pow(2).sum().sqrt() for a, b in pairs])
        for side in (ours, theirs)
    ]
    gap = (away[0] / away[0].mean() - away[1] / away[1].mean()).abs()
    smooth = torch.where(gap < 1, gap.pow(2) / 2, gap - 0.5)
    assert terms["relation"] == pytest.approx(40 * float(smooth.mean()))
    mask = method.priors(found, valid, step)
    p, q = (o.dense.flat_logits().detach()[mask].sigmoid() for o in (step.student, step.teacher))
    divergence = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    assert terms["cls"] == pytest.approx(0.1 * float(divergence.sum() / mask.sum()))
    edges = [
        boxes.expected_bin(o.dense.flat_boxes().detach(), fakes.BINS)[mask]
        for o in (step.student, step.teacher)
    ]
    assert terms["box"] == pytest.approx(float((edges[0] - edges[1]).abs().sum() / mask.sum()))


def test_two_boxes_have_no_relation() -> None:
    terms = made(count=2)(fakes.scene(batch=1).step)
    assert terms["relation"] == 0
    assert terms["feature"] > 0


def test_the_released_class_term_is_larger_by_a_constant() -> None:
    scene = fakes.scene()
    plain, released = (made(entropy=e)(scene.step)["cls"] for e in (False, True))
    assert released > plain
    gradients = [
        torch.autograd.grad(t, scene.student_neck[0], retain_graph=True)[0]
        for t in (plain, released)
    ]
    torch.testing.assert_close(*gradients)


def test_points_are_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="gid asks which anchors overlap"):
        made(fakes.spec("fcos"))


def test_of_two_that_are_equally_sure_the_student_speaks_unless_classes_are_compared() -> None:
    step = fakes.scene().step
    said = dataclasses.replace(step.teacher.dense, logits=step.student.dense.logits)
    for gap, surer in (("best", step.student.dense), ("class", said)):
        _, corners = instances.disagreement(step.student.dense, said, gap)  # type: ignore[arg-type]
        assert torch.equal(corners, surer.decoded())


def test_equal_rows_are_a_little_apart() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    apart = losses.relative_distances(rows, torch.ones(3, dtype=torch.bool))
    mean = (4 * 5 + 2e-6) / 6
    wanted = torch.tensor([[0.0, 1e-6, 5.0], [1e-6, 0.0, 5.0], [5.0, 5.0, 0.0]]) / mean
    torch.testing.assert_close(apart, wanted)
