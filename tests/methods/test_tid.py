from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes

from detdistill.methods import UnsuitablePairError
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
    nearest = (values.teacher_score.unsqueeze(-1) - possible).abs().amin(dim=-1)
    assert nearest.max() < 1e-6


def test_only_the_surest_points_of_each_image_are_scored_higher() -> None:
    values = made(class_top=0.1, positive_iou=0.0, box_scores=(1.0, 1.0, 1.0)).values(
        fakes.scene().step
    )
    points = values.teacher_score.shape[1]
    assert (values.teacher_score > 1).sum(dim=1).tolist() == [int(0.1 * points)] * 2


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
