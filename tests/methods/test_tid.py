from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from detdistill import masks
from detdistill.levels import unflatten
from detdistill.masks import exact
from detdistill.methods import UnsuitablePairError
from detdistill.methods.parts.values import at_points_of
from detdistill.methods.tid import TID


def made(facts: fakes.Spec | None = None, **settings: object) -> TID:
    method = TID(**settings)  # type: ignore[arg-type]
    method.setup(facts or fakes.spec(), facts or fakes.spec())
    return method


def test_the_value_is_key_times_weakness_times_nearness() -> None:
    values = made(weak_value=2.0).values(fakes.scene().step)
    wanted = values.key * (1 + values.weak.double()) * values.near
    torch.testing.assert_close(values.value, wanted)


def test_scores_are_products_of_one_of_three_and_one_of_two() -> None:
    values = made().values(fakes.scene().step)
    possible = torch.tensor([a * b for a in (2.0, 1.5, 0.4) for b in (1.5, 1.0)]).double()
    nearest = (values.teacher.score.unsqueeze(-1) - possible).abs().amin(dim=-1)
    assert nearest.max() < 1e-6


def test_only_the_surest_points_of_each_image_are_scored_higher() -> None:
    values = made(class_top=0.1, positive_iou=0.0, box_scores=(1.0, 1.0, 1.0)).values(
        fakes.scene().step
    )
    points = values.teacher.score.shape[1]
    assert (values.teacher.score > 1).sum(dim=1).tolist() == [int(0.1 * points)] * 2


def test_only_the_highest_scores_count_where_asked() -> None:
    values = made(key="top", key_top=0.1, key_outside=0.0).values(fakes.scene().step)
    assert (values.key > 0).sum(dim=1).tolist() == [int(0.1 * values.key.shape[1])] * 2


def test_a_student_like_its_teacher_has_no_weak_points() -> None:
    assert not made().values(fakes.scene(same=True).step).weak.any()


def test_an_image_without_objects_has_no_value_and_no_loss() -> None:
    scene = fakes.scene()
    scene.step.truth.valid[0] = False
    assert (made().values(scene.step).value[0] == 0).all()
    sum(made()(scene.step).values()).backward()  # type: ignore[union-attr]
    for level in scene.student_neck:
        assert level.grad is not None
        assert (level.grad[0] == 0).all()
        assert level.grad[1].abs().max() > 0


def test_padded_objects_do_not_matter() -> None:
    step = fakes.scene().step
    truth = step.truth
    wild = torch.where(truth.valid.unsqueeze(-1), truth.boxes, 9.0)
    other = dataclasses.replace(
        truth, boxes=wild, labels=torch.where(truth.valid, truth.labels, 99)
    )
    changed = dataclasses.replace(step, truth=other)
    assert torch.equal(made().values(step).mask, made().values(changed).mask)


def test_every_cell_of_a_tier_is_weighted_by_its_gain() -> None:
    values = made(gains=(3.0, 2.0, 1.0)).values(fakes.scene().step)
    gain = torch.tensor([3.0, 2.0, 1.0]).double()[values.tier]
    assert torch.equal(values.mask, values.value * gain)


@pytest.mark.parametrize("normaliser", ["tier", "all", "mask", "none"])
def test_one_uniform_tier_is_a_plain_feature_loss(normaliser: str) -> None:
    """An object that covers the image, equal scores: only the divisor is left."""
    settings = {"box_scores": (1.0,) * 3, "class_scores": (1.0, 1.0), "weak_value": 1.0}
    step = fakes.scene().step
    step.truth.boxes[:, 0] = torch.tensor([0.0, 0.0, 64.0, 64.0])
    terms = made(normaliser=normaliser, **settings)(step)
    for i, term in enumerate(terms.values()):
        error = (step.student.neck[i] - step.teacher.neck[i]).square()
        wanted = error.sum() if normaliser == "none" else error.mean() / 2
        torch.testing.assert_close(term, wanted / 3)


def test_absolute_differences_can_be_had() -> None:
    step = fakes.scene().step
    squared, absolute = made()(step), made(distance="l1")(step)
    assert all(not torch.equal(squared[name], absolute[name]) for name in squared)


@pytest.mark.parametrize("normaliser", ["tier", "mask"])
def test_counts_are_means_over_ranks(normaliser: str) -> None:
    method = made(normaliser=normaliser, box_scores=(2.0, 2.0, 2.0), tier_weights=(1.0, 0.0, 0.0))
    alone = method(fakes.scene().step)["level0"]
    together = method(fakes.scene(world_mean=lambda value: value * 2).step)["level0"]
    assert alone > 0
    torch.testing.assert_close(together, alone / 2)


def test_teacher_and_student_may_have_unlike_heads() -> None:
    teacher, student = fakes.spec("retinanet"), fakes.spec("gfl")
    method = TID()
    method.setup(teacher, student)
    assert all(term.isfinite() for term in method(fakes.scene(student, teacher).step).values())


def test_other_classes_are_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="4 classes"):
        TID().setup(fakes.spec(classes=4), fakes.spec())


# Other readings


def kinds(scores: Tensor) -> set[float]:
    return {round(score, 6) for score in scores.unique().tolist()}


def test_classes_alone_boxes_alone_and_raw_overlaps_can_make_the_score() -> None:
    step = fakes.scene().step
    classes = made(box_scores=(1.0,) * 3).values(step).teacher.score
    assert kinds(classes) == {1.0, 1.5}
    boxes = made(class_scores=(1.0, 1.0)).values(step).teacher.score
    assert kinds(boxes) == {2.0, 1.5, 0.4}
    raw = made(class_scores=(1.0, 1.0), raw_iou=True).values(step).teacher
    assert torch.equal(raw.score, raw.quality.iou)


def test_key_alone_and_weak_alone_can_make_the_value() -> None:
    step = fakes.scene().step
    key, weak = made(weak_value=1.0).values(step), made(key="none").values(step)
    torch.testing.assert_close(key.value, key.teacher.score * key.near)
    torch.testing.assert_close(weak.value, (1 + 0.5 * weak.weak) * weak.near)


def test_outside_of_the_highest_the_lowest_score_can_count() -> None:
    values = made(key="top", key_outside=None).values(fakes.scene().step)
    highest = values.key != values.teacher.score.amin(dim=1, keepdim=True)
    assert highest.sum(dim=1).tolist() == [int(0.025 * values.key.shape[1])] * 2


def test_the_first_of_two_stages_has_its_own_thresholds() -> None:
    facts = fakes.spec()
    assert (made(facts).right, made(facts).wrong) == (0.5, 0.4)
    first = dataclasses.replace(facts, family="region")
    assert (made(first).right, made(first).wrong) == (0.7, 0.3)
    assert (made(first, positive_iou=0.6).right, made(first).wrong) == (0.6, 0.3)


def test_every_object_can_have_a_threshold_of_its_own() -> None:
    step = fakes.scene().step
    values = made(thresholds="adaptive", class_scores=(1.0, 1.0)).values(step)
    counts = [len(level) for level in step.teacher.dense.priors]
    limit = masks.adaptive_threshold(step.teacher.dense.flat_priors(), counts, step.truth)
    quality = values.teacher.quality
    wanted = (quality.iou >= limit.gather(1, quality.match.clamp(min=0))) & (quality.match >= 0)
    assert wanted.any()
    assert torch.equal(values.teacher.score == 2.0, wanted)
    assert kinds(values.teacher.score) == {2.0, 0.4}


def test_with_anchors_only_the_classes_make_teacher_and_student_differ() -> None:
    values = made(overlap_of="anchors").values(fakes.scene().step)
    assert torch.equal(values.teacher.quality.iou, values.student.quality.iou)
    assert not torch.equal(values.teacher.quality.score, values.student.quality.score)


@pytest.mark.parametrize(
    "setting", [{"overlap_of": "anchors"}, {"thresholds": "adaptive"}], ids=["anchors", "adaptive"]
)
def test_points_have_no_anchors(setting: dict[str, object]) -> None:
    with pytest.raises(UnsuitablePairError, match="anchors overlap an object"):
        made(fakes.spec("fcos"), **setting)


def test_an_object_can_count_on_the_level_of_its_size_alone() -> None:
    step = fakes.scene(size=320).step
    values = made(objects="own").values(step)
    level = masks.object_level(step.truth.boxes, 3)
    sizes = [m.shape[-1] * m.shape[-2] for m in step.teacher.neck]
    of_point = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    match = values.teacher.quality.match
    hit = match >= 0
    assert hit.any()
    assert (level.gather(1, match.clamp(min=0)) == of_point)[hit].all()
    near_somewhere = torch.stack([(of_point == n) & (values.near > 0) for n in range(3)]).any(-1)
    has_objects = torch.stack([((level == n) & step.truth.valid).any(-1) for n in range(3)])
    assert not near_somewhere[~has_objects].any()


def test_images_can_be_ranked_together() -> None:
    settings = {"class_top": 0.1, "box_scores": (1.0, 1.0, 1.0)}
    values = made(class_scope="batch", **settings).values(fakes.scene().step)
    top = values.teacher.score > 1
    score = values.teacher.quality.score
    assert top.sum() == int(0.1 * top.numel())
    assert score[top].min() >= score[~top].max()


def test_a_probability_can_decide_who_is_sure() -> None:
    values = made(class_least=0.5, box_scores=(1.0,) * 3).values(fakes.scene().step)
    sure = values.teacher.quality.score >= 0.5
    assert 0 < sure.sum() < sure.numel()
    assert torch.equal(values.teacher.score > 1, sure)


def test_all_in_the_box_of_a_weak_point_can_be_weak() -> None:
    step = fakes.scene().step
    points, boxes = (made(weak_area=area).values(step) for area in ("points", "boxes"))  # type: ignore[arg-type]
    assert (points.weak <= boxes.weak).all()
    cells = torch.cat([p.view(-1, 2, 2).mean(dim=1) for p in step.teacher.dense.priors])
    for image in range(2):
        inside = torch.zeros_like(points.weak[image])
        for left, top, right, bottom in points.teacher.quality.box[image][points.weak[image]]:
            x, y = cells.double().unbind(-1)
            inside |= (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
        assert torch.equal(boxes.weak[image], inside | points.weak[image])


@pytest.mark.parametrize("scope", ["image", "level", "batch"])
def test_suppression_in_space_leaves_no_point_beside_a_weaker_one(scope: str) -> None:
    step = fakes.scene().step
    values = made(nms="spatial", weak_scope=scope, weak_top=0.5).values(step)
    lag = values.teacher.score - values.student.score
    assert values.weak.any()
    for weak, level in zip(
        unflatten(values.weak, step.teacher.neck), unflatten(lag, step.teacher.neck), strict=True
    ):
        highest = F.max_pool2d(level.unsqueeze(1), 3, stride=1, padding=1).squeeze(1)
        assert (level[weak] == highest[weak]).all()


def test_tiers_can_be_flat() -> None:
    values = made(graded=False).values(fakes.scene().step)
    gains = torch.tensor([1.0, 0.7, 0.05], dtype=torch.float64)
    torch.testing.assert_close(values.mask, gains[values.tier])


def test_a_student_with_other_strides_is_brought_to_the_teachers_points() -> None:
    student, teacher = fakes.spec(strides=(16, 32, 64)), fakes.spec()
    method = TID()
    method.setup(teacher, student)
    scene = fakes.scene(student, teacher)
    values = method.values(scene.step)
    assert values.mask.shape[1] == 64 + 16 + 4
    assert values.student.score.shape[1] == 16 + 4 + 1
    coarse = values.student.score[:, :16].view(2, 4, 4)
    fine = at_points_of(scene.step.teacher.dense, values.student.score, scene.step.student.dense)
    assert torch.equal(fine[:, :64].view(2, 8, 8)[:, ::2, ::2], coarse)
    sum(method(scene.step).values()).backward()  # type: ignore[union-attr]
    assert all(level.grad is not None for level in scene.student_neck)


def test_objects_looked_at_in_portions_give_what_all_at_once_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"weak_area": "boxes", "objects": "own"}
    wanted = made(**settings).values(fakes.scene(objects=5).step)
    monkeypatch.setattr(exact, "LIMIT", 200)
    assert len(exact.portions(6, 168)) == 6
    found = made(**settings).values(fakes.scene(objects=5).step)
    for ours, theirs in zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True):
        assert torch.equal(ours, theirs)


def test_the_first_of_two_stages_is_looked_at_whatever_the_class() -> None:
    facts = fakes.spec("rcnn")
    step = fakes.scene(facts).step
    values = made(facts).values(step)
    other = dataclasses.replace(step.truth, labels=2 - step.truth.labels)
    assert values.mask.max() > 0
    assert torch.equal(made(facts).values(dataclasses.replace(step, truth=other)).mask, values.mask)
