from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from detdistill import boxes, masks
from detdistill.masks import exact
from detdistill.masks.suppression import BLOCK, by_block, by_image
from detdistill.structures import Truth


def objects(*images: list[list[float]], padding: int = 1) -> Truth:
    """Images' boxes, labelled 0, 1, ... in order; a slot of nonsense before and after."""
    count = max(map(len, images)) + padding
    corners = torch.full((len(images), count, 4), 7.0)
    labels, valid = torch.full((len(images), count), 99), torch.zeros(len(images), count).bool()
    for image, found in enumerate(images):
        start = padding if found else 0
        corners[image, start : start + len(found)] = torch.tensor(found).reshape(-1, 4)
        labels[image, start : start + len(found)] = torch.arange(len(found))
        valid[image, start : start + len(found)] = True
    return Truth(
        boxes=corners,
        labels=labels,
        valid=valid,
        crowd=~valid,
        sizes=torch.full((len(images), 2), 64),
    )


def random_boxes(*shape: int, step: float = 0.0) -> Tensor:
    """Boxes within 60 pixels; on a grid if `step`, so that ties occur."""
    corners = torch.rand(*shape, 2) * 40
    made = torch.cat([corners, corners + torch.rand(*shape, 2) * 20], dim=-1).double()
    return (made / step).round() * step if step else made


# Ranking and suppression


def test_ranking_breaks_ties_by_the_next_key_and_then_by_position() -> None:
    first = torch.tensor([[1.0, 2.0, 2.0, 2.0, 1.0]])
    second = torch.tensor([[0.0, 5.0, 6.0, 5.0, 0.0]])
    assert masks.ranking(first, second).tolist() == [[2, 1, 3, 0, 4]]


@pytest.mark.parametrize(
    ("fraction", "total", "wanted"), [(0.025, 10, 1), (0.29, 100, 29), (0.35, 10, 3)]
)
def test_a_share_of_points_is_rounded_down_but_never_to_none(
    fraction: float, total: int, wanted: int
) -> None:
    assert masks.count_of(fraction, total) == wanted


def test_groups_are_ranked_each_for_itself() -> None:
    values = torch.tensor([[9.0, 8.0, 1.0, 2.0, 3.0]])
    top = masks.by_group(partial(masks.top_points, 0.1), [2, 3], values)
    assert top.tolist() == [[True, False, False, False, True]]


def greedy(ranked: Tensor, alive: Tensor, threshold: float, count: int) -> list[int]:
    """The plain loop over one image."""
    kept: list[int] = []
    for i in range(len(ranked)):
        clear = all(boxes.iou(ranked[i], ranked[j]) <= threshold for j in kept)
        if alive[i] and clear and len(kept) < count:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("step", [0.0, 5.0])
def test_survivors_are_those_of_the_plain_loop(seed: int, step: float) -> None:
    torch.manual_seed(seed)
    ranked, alive = random_boxes(3, 25, step=step), torch.rand(3, 25) < 0.7
    alive[0] = seed % 2 == 0
    for threshold, count in ((0.3, 25), (0.5, 4), (0.0, 7)):
        kept = masks.survivors(ranked, alive, threshold, count)
        for image in range(3):
            wanted = greedy(ranked[image], alive[image], threshold, count)
            assert kept[image].nonzero().flatten().tolist() == wanted


@pytest.mark.parametrize("step", [0.0, 2.0])
@pytest.mark.parametrize("count", [5, 40, 3 * BLOCK])
def test_survivors_of_many_blocks_are_those_of_torchvision(step: float, count: int) -> None:
    torch.manual_seed(count)
    many = 3 * BLOCK - 7
    ranked, alive = random_boxes(4, many, step=step), torch.rand(4, many) < 0.7
    ranked[3], alive[3] = ranked[3, :1], alive[3].flip(0)
    kept = masks.survivors(ranked, alive, 0.4, count)
    for image in range(4):
        rows = alive[image].nonzero().flatten()
        falling = torch.arange(len(rows), 0, -1.0).double()
        wanted = rows[nms(ranked[image, rows], falling, 0.4)].sort().values[:count]
        assert torch.equal(kept[image].nonzero().flatten(), wanted)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("step", [0.0, 2.0])
def test_a_gpu_is_given_the_survivors_that_a_cpu_finds(seed: int, step: float) -> None:
    torch.manual_seed(seed)
    corners, alive = random_boxes(3, 2 * BLOCK, step=step), torch.rand(3, 2 * BLOCK) < 0.7
    alive[2] = False
    found = by_image(corners, alive, 0.4)
    assert torch.equal(found, by_block(corners, alive, 0.4, count=2 * BLOCK))
    assert found[:2].any(dim=1).all()


def weak(lag: list[float], *, nms: str, boxes_of: Tensor | None = None) -> list[int]:
    values = torch.tensor([lag])
    box = torch.zeros(1, len(lag), 4) if boxes_of is None else boxes_of
    chosen = masks.weak_points(
        values,
        torch.zeros_like(values),
        values,
        box,
        fraction=0.5,
        nms=nms,
        nms_iou=0.6,  # type: ignore[arg-type]
    )
    return chosen[0].nonzero().flatten().tolist()


def test_only_points_where_the_student_lags_are_weak() -> None:
    assert weak([-1.0, 0.0, 0.5, -2.0], nms="none") == [2]
    assert weak([0.0, 0.0], nms="none") == []


def test_suppression_before_the_selection_reaches_further_than_after_it() -> None:
    apart = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 29, 29], [40, 40, 49, 49]]])
    lag = [4.0, 3.0, 2.0, 1.0]
    assert weak(lag, nms="before", boxes_of=apart) == [0, 2]
    assert weak(lag, nms="after", boxes_of=apart) == [0]
    assert weak(lag, nms="none", boxes_of=apart) == [0, 1]


# Quality


def test_quality_is_the_best_overlap_and_the_probability_of_that_objects_class() -> None:
    truth = objects([[0, 0, 10, 10], [20, 20, 30, 30]])
    predicted = torch.tensor([[[[0.0, 0, 10, 5]], [[20, 20, 30, 30]], [[50, 50, 60, 60]]]])
    prob = torch.tensor([[[[0.1, 0.9]], [[0.2, 0.7]], [[0.3, 0.4]]]])
    quality = masks.point_quality(prob, predicted, truth)
    torch.testing.assert_close(quality.iou, torch.tensor([[0.5, 1.0, 0.0]]).double())
    torch.testing.assert_close(quality.score, torch.tensor([[0.1, 0.7, 0.4]]).double())


def test_the_class_score_may_be_that_of_any_present_or_of_any_class() -> None:
    truth = objects([[0, 0, 10, 10]])
    predicted, prob = torch.tensor([[[[0.0, 0, 10, 10]]]]), torch.tensor([[[[0.2, 0.9]]]])
    for rule, wanted in (("matched", 0.2), ("present", 0.2), ("any", 0.9)):
        quality = masks.point_quality(prob, predicted, truth, rule)  # type: ignore[arg-type]
        assert quality.score.item() == pytest.approx(wanted)


def test_the_box_of_a_point_is_the_overlapping_one_or_else_the_most_confident() -> None:
    truth = objects([[0, 0, 10, 10]])
    near, far = [0.0, 0, 10, 9], [50.0, 50, 60, 60]
    predicted = torch.tensor([[[far, near], [far, [40.0, 40, 50, 50]]]])
    prob = torch.tensor([[[[0.9], [0.1]], [[0.2], [0.3]]]])
    quality = masks.point_quality(prob, predicted, truth)
    assert quality.box.tolist() == [[near, [40.0, 40, 50, 50]]]


@pytest.mark.parametrize("slots", [0, 2])
def test_an_image_without_objects_has_no_overlap_and_the_best_probability(slots: int) -> None:
    truth = objects([], padding=slots)
    quality = masks.point_quality(torch.tensor([[[[0.2, 0.6]]]]), random_boxes(1, 1, 1), truth)
    assert quality.iou.item() == 0
    assert quality.score.item() == pytest.approx(0.6)


# Nearness


def test_nearness_is_one_inside_and_falls_to_zero_at_the_corner_of_the_ring() -> None:
    truth = objects([[10, 10, 30, 20]])
    points = torch.tensor([[10.0, 20.0], [35, 15], [40, 25], [41, 15], [20, 26]])
    near = masks.nearness(points, truth, ring=0.5)[0]
    reach = (10.0**2 + 5.0**2) ** 0.5
    torch.testing.assert_close(near, torch.tensor([1, 1 - 5 / reach, 0, 0, 0]).double())


def test_outward_nearness_grows_with_the_distance() -> None:
    truth, points = objects([[10, 10, 30, 30]]), torch.tensor([[31.0, 20.0], [39.0, 20.0]])
    near = masks.nearness(points, truth, ring=0.5, decay="outward")[0]
    assert near[0] < near[1]


def test_objects_that_are_padding_or_empty_are_near_to_nothing() -> None:
    points = torch.tensor([[7.0, 7.0], [12.0, 12.0]])
    assert (masks.nearness(points, objects([]), ring=0.5) == 0).all()
    near = masks.nearness(points, objects([[12, 12, 12, 12]]), ring=0.5)
    assert near.tolist() == [[0.0, 1.0]]


def test_a_ring_can_have_round_corners_or_a_width_in_cells() -> None:
    truth = objects([[10, 10, 30, 20]])
    points = torch.tensor([[20.0, 26.0], [39.0, 20], [20, 24], [20, 29]])
    reach = (10.0**2 + 5.0**2) ** 0.5
    circle = masks.nearness(points, truth, ring=0.5, vicinity="circle")[0]
    torch.testing.assert_close(
        circle, 1 - torch.tensor([6.0, 9, 4, 9], dtype=torch.float64) / reach
    )
    strides = torch.tensor([8, 8, 2, 2])
    cells = masks.nearness(points, truth, ring=1.0, vicinity="cells", strides=strides)[0]
    wanted = torch.tensor([1 - 6 / 128**0.5, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(cells, wanted)


def test_distances_can_be_from_the_centre_and_up_to_the_farthest_that_there_is() -> None:
    truth, points = objects([[10, 10, 30, 20]]), torch.tensor([[20.0, 15], [34, 15], [38, 15]])
    centre = masks.nearness(points, truth, ring=0.5, origin="center")[0]
    reach = (20.0**2 + 10.0**2) ** 0.5
    wanted = torch.tensor([1, 1 - 14 / reach, 1 - 18 / reach], dtype=torch.float64)
    torch.testing.assert_close(centre, wanted)
    observed = masks.nearness(points, truth, ring=0.5, reach="observed")[0]
    torch.testing.assert_close(observed, torch.tensor([1, 0.5, 0], dtype=torch.float64))


def test_of_several_objects_the_nearest_counts_however_many_are_looked_at_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth = objects([[10, 10, 30, 20], [0, 0, 4, 4], [36, 10, 60, 30], [10, 10, 11, 11]])
    points = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) * 60
    wanted = masks.nearness(points, truth, ring=0.5)
    assert 0 < (wanted > 0).sum() < 40
    monkeypatch.setattr(exact, "LIMIT", 1)
    assert torch.equal(masks.nearness(points, truth, ring=0.5), wanted)


def test_masks_do_not_keep_history() -> None:
    prob = torch.rand(1, 2, 1, 3, requires_grad=True)
    quality = masks.point_quality(prob, random_boxes(1, 2, 1), objects([[0, 0, 10, 10]]))
    assert not any(part.requires_grad for part in quality)


# Cells of objects


def spans(box: Tensor, stride: int) -> list[int]:
    """First and end cell of a box, without limits: x1, y1, x2, y2."""
    return [int(number) for number in box / stride]


def cells_of_loop(box: Tensor, height: int, width: int, stride: int) -> Tensor:
    """An object's cells, as DeFeat counts them, one by one."""
    x1, y1, x2, y2 = spans(box, stride)
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    covered = torch.zeros(height, width, dtype=torch.bool)
    if x1 == x2 or y1 == y2:
        covered[y1:, x1:][:1, :1] = True
    else:
        covered[y1 : max(y2, y1), x1 : max(x2, x1)] = True
    return covered


def bell_of_loop(box: Tensor, height: int, width: int, stride: int) -> Tensor:
    """An object's bell, one cell after the other."""
    x1, y1, x2, y2 = spans(box, stride)
    bell = torch.zeros(height, width)
    thin = x1 == x2 or y1 == y2
    for y in range(y1, y1 + 1 if thin else y2):
        for x in range(x1, x1 + 1 if thin else x2):
            if 0 <= x < width and 0 <= y < height:
                across = (x - (x1 + x2) / 2) / ((x2 - x1) / 2) if not thin else 0.0
                down = (y - (y1 + y2) / 2) / ((y2 - y1) / 2) if not thin else 0.0
                bell[y, x] = math.exp(-(across**2 + down**2) / 2)
    return bell


@pytest.mark.parametrize("seed", range(6))
def test_cells_and_bells_of_objects_are_those_of_a_loop(seed: int) -> None:
    torch.manual_seed(seed)
    found = random_boxes(4).float() * 2 - 30  # some end outside, some are thin
    found[0, 2] = found[0, 0] + 1
    truth = objects(found.tolist(), [])
    cells = masks.object_cells(truth, (7, 9), 8)
    bells = masks.gaussian_cells(truth, (7, 9), 8)
    wanted = torch.stack([cells_of_loop(box, 7, 9, 8) for box in found]).any(dim=0)
    assert torch.equal(cells[0], wanted)
    assert not cells[1].any()
    bell = torch.stack([bell_of_loop(box, 7, 9, 8) for box in found]).amax(dim=0)
    torch.testing.assert_close(bells[0], bell)
    assert (bells[1] == 0).all()


def test_an_object_stands_on_one_level_of_a_pyramid() -> None:
    truth = objects([[0, 0, 40, 40], [0, 0, 230, 230]])
    neck = tuple(torch.zeros(1, 1, 256 // stride, 256 // stride) for stride in (8, 16, 32))
    levels = masks.pyramid(masks.object_cells, truth, neck, (8, 16, 32))
    assert [int(level.sum()) for level in levels] == [25, 0, 49]


def test_scattered_cells_are_about_as_many() -> None:
    cells = torch.zeros(2, 60, 60, dtype=torch.bool)
    cells[0, :30] = True
    drawn = masks.scattered(cells, 3)
    assert float(drawn[0].float().mean()) == pytest.approx(0.5, abs=0.03)
    assert not drawn[1].any()
    assert float((drawn[0] & cells[0]).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_as_many_are_drawn_from_the_candidates_as_are_wanted() -> None:
    candidates = torch.tensor([[True] * 6 + [False] * 2, [True] * 2 + [False] * 6])
    wanted = torch.zeros_like(candidates)
    wanted[:, -3:] = True
    drawn = masks.as_many(candidates, wanted, 5)
    assert drawn.sum(dim=1).tolist() == [3, 2]
    assert not (drawn & ~candidates).any()
    assert not torch.equal(drawn, masks.as_many(candidates, wanted, 6))


def test_a_box_belongs_to_the_object_that_it_overlaps_well() -> None:
    truth = objects([[0, 0, 10, 10], [20, 20, 40, 40]], [])
    corners = torch.tensor([[0.0, 0, 10, 9], [0, 0, 4, 10], [21, 20, 40, 40], [7, 7, 7, 7]])
    labels, matched = masks.objects_of(corners.repeat(2, 1, 1), truth, 9)
    assert labels.tolist() == [[0, 9, 1, 9], [9, 9, 9, 9]]
    assert matched[0].tolist() == [[0, 0, 10, 10], [0] * 4, [20, 20, 40, 40], [0] * 4]
