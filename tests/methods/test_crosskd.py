from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes
from torch import Tensor
from torch.nn import functional as F

from detdistill import losses
from detdistill.methods import UnsuitablePairError
from detdistill.methods.crosskd import CrossKD
from detdistill.structures import Targets


def made(facts: fakes.Spec | None = None, **settings: object) -> CrossKD:
    method = CrossKD(**settings)  # type: ignore[arg-type]
    method.setup(facts or fakes.spec(), facts or fakes.spec())
    return method


def with_targets(scene: fakes.Scene, **changes: Tensor) -> fakes.Step:
    assigned: Targets = dataclasses.replace(scene.step.targets, **changes)
    return dataclasses.replace(scene.step, targets=assigned)


# Where it cuts


@pytest.mark.parametrize(
    ("kind", "depth", "wanted"),
    [
        ("gfl", 4, 3),
        ("atss", 4, 3),
        ("retinanet", 4, 3),
        ("fcos", 4, 2),
        ("gfl", 2, 1),
        ("fcos", 1, 0),
    ],
)
def test_the_cut_is_the_released_one_unless_chosen(
    kind: fakes.Kind, depth: int, wanted: int
) -> None:
    assert made(fakes.spec(kind, depth=depth)).reads.towers == {wanted}


def test_a_cut_beyond_the_tower_is_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="set cut from 0 to 2"):
        made(cut=3)


def test_the_shorter_tower_limits_the_cut() -> None:
    deep = fakes.spec(depth=4)
    with pytest.raises(UnsuitablePairError, match=r"teacher 4, student 2"):
        CrossKD(cut=3).setup(deep, fakes.spec(depth=2))


def test_towers_of_different_width_are_refused_behind_the_neck_only() -> None:
    wide = fakes.spec(tower_channels=12)
    with pytest.raises(UnsuitablePairError, match="8 channels and the teacher's 12"):
        CrossKD(cut=1).setup(wide, fakes.spec())
    CrossKD(cut=0).setup(wide, fakes.spec())


def test_other_class_counts_orders_and_prior_counts_are_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="4 classes and the student 3"):
        CrossKD().setup(fakes.spec(classes=4), fakes.spec())
    turned = dataclasses.replace(fakes.spec(), classes=("c", "b", "a"))
    with pytest.raises(UnsuitablePairError, match="another order"):
        CrossKD().setup(turned, fakes.spec())
    with pytest.raises(UnsuitablePairError, match="priors per cell"):
        CrossKD().setup(fakes.spec("retinanet"), fakes.spec("atss"))


# What goes through the teacher


def test_with_every_block_the_students_it_mimics_predictions_of_the_teachers_last_layer() -> None:
    scene = fakes.scene()
    crossed = made(cut=2, align=False).predicted(scene.step)
    towers = scene.step.student.towers
    wanted = tuple(map(scene.teacher_head.cls, towers.cls[2]))
    torch.testing.assert_close(crossed.logits, wanted)


def test_cut_zero_sends_the_neck_through_the_whole_teacher_without_an_activation() -> None:
    scene = fakes.scene()
    crossed = made(cut=0, align=False).predicted(scene.step)
    wanted = scene.teacher_head(scene.student_neck).dense
    torch.testing.assert_close(crossed.logits, wanted.logits)
    torch.testing.assert_close(crossed.boxes, wanted.boxes)


def test_aligned_features_have_the_teachers_statistics_and_are_activated() -> None:
    step = fakes.scene().step
    student, teacher = step.student.towers.cls[1], step.teacher.towers.cls[1]
    held = made().held(student, teacher)
    for level, ours, theirs in zip(held, student, teacher, strict=True):
        torch.testing.assert_close(level, F.relu(losses.with_statistics_of(ours, theirs)))


def test_before_the_activation_it_reads_what_is_before_the_activation() -> None:
    assert made(preactivation=True).reads.preactivation
    scene = fakes.scene(preactivation=True)
    assert any((level < 0).any() for level in scene.step.student.towers.cls[1])
    crossed = made(preactivation=True, align=False).predicted(scene.step)
    wanted = made(align=False).predicted(fakes.scene().step)
    torch.testing.assert_close(crossed.logits, wanted.logits)


def test_layers_of_the_student_behind_the_cut_learn_nothing() -> None:
    scene = fakes.scene()
    sum(made(cut=1)(scene.step).values()).backward()  # type: ignore[union-attr]
    head = scene.student_head
    assert head.cls_tower[0].weight.grad is not None
    for layer in (head.cls_tower[1], head.reg_tower[1], head.cls, head.reg):
        assert layer.weight.grad is None


# What it costs


@pytest.mark.parametrize(
    ("kind", "cls_weight", "box_weight"),
    [("gfl", 1.0, 4.0), ("atss", 1.0, 1.0), ("retinanet", 1.0, 1.0), ("fcos", 0.4, 0.75)],
)
def test_the_weights_are_the_released_ones_unless_chosen(
    kind: fakes.Kind, cls_weight: float, box_weight: float
) -> None:
    facts = fakes.spec(kind)
    step = fakes.scene(facts).step
    released = made(facts)(step)
    plain = made(facts, cls_weight=1.0, box_weight=1.0)(step)
    torch.testing.assert_close(released["cls"], cls_weight * plain["cls"])
    torch.testing.assert_close(released["box"], box_weight * plain["box"])


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("gfl", {"cls", "box"}),
        ("atss", {"cls", "box", "centerness"}),
        ("retinanet", {"cls", "box"}),
        ("fcos", {"cls", "box"}),
    ],
)
def test_only_anchor_heads_with_centerness_have_its_term(
    kind: fakes.Kind, wanted: set[str]
) -> None:
    facts = fakes.spec(kind)
    assert set(made(facts)(fakes.scene(facts).step)) == wanted


@pytest.mark.parametrize("kind", ["atss", "retinanet", "fcos"])
def test_a_student_like_its_teacher_loses_nothing_in_any_kind_of_head(kind: fakes.Kind) -> None:
    facts = fakes.spec(kind)
    scene = fakes.scene(facts, same=True)
    terms = made(facts)(scene.step)
    for name, term in terms.items():
        if name == "centerness":  # a cross entropy: its least value is the teacher's entropy
            gradient = torch.autograd.grad(term, scene.student_neck, retain_graph=True)
            assert all(level.abs().max() < 1e-6 for level in gradient)
        else:
            assert term.abs() < 1e-5


def test_ignored_priors_count_nowhere() -> None:
    scene = fakes.scene()
    ignored = scene.step.targets.weights == 0
    teacher = scene.step.teacher
    loud = tuple(level.clone() for level in teacher.dense.logits)
    start = 0
    for level in loud:
        count = level.shape[-2] * level.shape[-1]
        here = ignored[:, start : start + count].view(len(level), 1, *level.shape[-2:])
        level.masked_fill_(here, 50.0)
        start += count
    changed = dataclasses.replace(teacher.dense, logits=loud)
    other = dataclasses.replace(
        scene.step, teacher=dataclasses.replace(teacher, predictions=changed)
    )
    method = made()
    torch.testing.assert_close(method(scene.step), method(other))


def test_the_class_term_is_divided_by_the_positives_and_the_box_term_is_not() -> None:
    scene = fakes.scene()
    doubled = with_targets(scene, positives=scene.step.targets.positives * 2)
    before, after = made()(scene.step), made()(doubled)
    torch.testing.assert_close(after["cls"], before["cls"] / 2)
    torch.testing.assert_close(after["box"], before["box"])


@pytest.mark.parametrize(("kind", "term"), [("gfl", "box"), ("fcos", "cls"), ("fcos", "box")])
def test_normalisers_are_means_over_ranks(kind: fakes.Kind, term: str) -> None:
    """Where the other rank has three times as much, the mean is twice ours."""
    facts = fakes.spec(kind)
    alone = made(facts)(fakes.scene(facts).step)
    together = made(facts)(fakes.scene(facts, world_mean=lambda value: value * 2).step)
    torch.testing.assert_close(together[term], alone[term] / 2)


def test_fcos_without_positives_explodes_only_with_the_released_floor() -> None:
    facts = fakes.spec("fcos")
    step = fakes.scene(facts, objects=0).step
    ours, released = made(facts)(step), made(facts, floor=1e-6)(step)
    assert ours["cls"] < 1e3
    assert released["cls"] > 1e5 * ours["cls"]


def test_a_distribution_teacher_can_teach_a_student_with_other_boxes() -> None:
    teacher, student = fakes.spec("gfl"), fakes.spec("atss")
    method = CrossKD()
    method.setup(teacher, student)
    terms = method(fakes.scene(student, teacher).step)
    assert set(terms) == {"cls", "box"}
    assert all(term > 0 for term in terms.values())
