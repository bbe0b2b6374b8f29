from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tests import fakes
from torch import Tensor
from torch.nn import functional as F

from detdistill import losses
from detdistill.methods import UnsuitablePairError
from detdistill.methods.crosskd import CrossKD
from detdistill.methods.kd import KD
from detdistill.methods.parts import crossing, mimicry
from detdistill.structures import DensePredictions, Targets


def made(facts: fakes.Spec | None = None, **settings: object) -> CrossKD:
    method = CrossKD(**settings)  # type: ignore[arg-type]
    method.setup(facts or fakes.spec(), facts or fakes.spec())
    return method


def with_targets(scene: fakes.Scene, **changes: Tensor) -> fakes.Step:
    assigned: Targets = dataclasses.replace(scene.step.targets, **changes)
    return dataclasses.replace(scene.step, targets=assigned)


def dense(said: object) -> DensePredictions:
    assert isinstance(said, DensePredictions)
    return said


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
        made(cut=4)


def test_the_shorter_tower_limits_the_cut() -> None:
    deep = fakes.spec(depth=4)
    with pytest.raises(UnsuitablePairError, match=r"teacher 4, student 2"):
        CrossKD(cut=4).setup(deep, fakes.spec(depth=2))


def test_towers_of_different_width_are_refused_behind_the_neck_only() -> None:
    wide = fakes.spec(tower_channels=12)
    with pytest.raises(UnsuitablePairError, match="8 channels and the teacher's 12"):
        CrossKD(cut=1).setup(wide, fakes.spec())
    CrossKD(cut=0).setup(wide, fakes.spec())


def test_other_class_counts_and_orders_are_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="4 classes and the student 3"):
        CrossKD().setup(fakes.spec(classes=4), fakes.spec())
    turned = dataclasses.replace(fakes.spec(), classes=("c", "b", "a"))
    with pytest.raises(UnsuitablePairError, match="another order"):
        CrossKD().setup(turned, fakes.spec())


# What goes through the teacher


def test_with_every_block_the_students_it_mimics_predictions_of_the_teachers_last_layer() -> None:
    scene = fakes.scene()
    crossed = dense(made(cut=2, align=False).predicted(scene.step))
    towers = scene.step.student.towers
    wanted = tuple(map(scene.teacher_head.cls, towers.cls[2]))
    torch.testing.assert_close(crossed.logits, wanted)


def test_cut_zero_sends_the_neck_through_the_whole_teacher_without_an_activation() -> None:
    scene = fakes.scene()
    crossed = dense(made(cut=0, align=False).predicted(scene.step))
    wanted = scene.teacher_head(scene.student_neck).dense
    torch.testing.assert_close(crossed.logits, wanted.logits)
    torch.testing.assert_close(crossed.boxes, wanted.boxes)


def test_aligned_features_have_the_teachers_statistics_and_are_activated() -> None:
    step = fakes.scene().step
    student, teacher = step.student.towers, step.teacher.towers
    towers = crossing.entering(student, teacher, 1, align=True, lone=True)
    for level, ours, theirs in zip(towers.reg[1], student.reg[1], teacher.reg[1], strict=True):
        torch.testing.assert_close(level, F.relu(losses.with_statistics_of(ours, theirs)))


@pytest.mark.filterwarnings("ignore:std")
def test_one_element_channels_are_finite_unless_the_released_behaviour_is_wanted() -> None:
    step = fakes.scene(batch=1, size=8).step
    assert all(term.isfinite() for term in made()(step).values())
    assert all(term.isnan() for term in made(lone=False)(step).values())


def test_before_the_activation_it_reads_what_is_before_the_activation() -> None:
    assert made(preactivation=True).reads.preactivation
    scene = fakes.scene(preactivation=True)
    assert any((level < 0).any() for level in scene.step.student.towers.cls[1])
    crossed = dense(made(preactivation=True, align=False).predicted(scene.step))
    wanted = dense(made(align=False).predicted(fakes.scene().step))
    torch.testing.assert_close(crossed.logits, wanted.logits)


def test_layers_of_the_student_behind_the_cut_learn_nothing() -> None:
    scene = fakes.scene()
    sum(made(cut=1)(scene.step).values()).backward()  # type: ignore[union-attr]
    head = scene.student_head
    assert head.cls_tower[0].weight.grad is not None
    for layer in (head.cls_tower[1], head.reg_tower[1], head.cls, head.reg):
        assert layer.weight.grad is None


def test_with_no_layer_left_to_cross_it_is_prediction_mimicking() -> None:
    step = fakes.scene().step
    plain = KD()
    plain.setup(fakes.spec(), fakes.spec())
    method = made(cut=3)
    assert not method.reads.towers
    torch.testing.assert_close(method(step), plain(step))


# Teachers with other priors


@pytest.mark.parametrize("teacher", ["atss", "retinanet", "fcos"])
@pytest.mark.parametrize("student", ["gfl", "retinanet"])
def test_teachers_with_other_priors_and_boxes_can_teach(
    student: fakes.Kind, teacher: fakes.Kind
) -> None:
    pair = fakes.spec(teacher), fakes.spec(student)
    method = CrossKD()
    method.setup(*pair)
    scene = fakes.scene(pair[1], pair[0])
    for term in method(scene.step).values():
        found = torch.autograd.grad(term, scene.student_neck, retain_graph=True)
        assert any(level.abs().max() > 0 for level in found)


def test_priors_of_a_teacher_count_as_their_cell_does_for_the_student() -> None:
    student, teacher = fakes.spec("gfl"), fakes.spec("retinanet")
    method = CrossKD()
    method.setup(teacher, student)
    step = fakes.scene(student, teacher).step
    said, wanted = map(dense, method.compared(step))
    comparison = method.comparison(said, wanted, step)
    assert torch.equal(comparison.weight, step.targets.weights.repeat_interleave(3, dim=1))
    assert torch.equal(comparison.positive, (step.targets.labels < 3).repeat_interleave(3, dim=1))


def test_a_cell_counts_for_a_teacher_if_any_prior_of_the_student_does() -> None:
    student, teacher = fakes.spec("retinanet"), fakes.spec("atss")
    method = CrossKD()
    method.setup(teacher, student)
    step = fakes.scene(student, teacher).step
    said, wanted = map(dense, method.compared(step))
    found = method.comparison(said, wanted, step).positive
    assert torch.equal(found, (step.targets.labels < 3).unflatten(1, (-1, 3)).any(dim=-1))


# The strategies of table 12


def test_b_teaches_the_student_what_its_own_head_makes_of_the_teachers_features() -> None:
    scene = fakes.scene()
    said, wanted = map(dense, made(strategy="b", cut=2, align=False).compared(scene.step))
    assert said is scene.step.student.dense
    torch.testing.assert_close(
        wanted.logits, tuple(map(scene.student_head.cls, scene.step.teacher.towers.cls[2]))
    )
    assert not any(level.requires_grad for level in (*wanted.logits, *wanted.boxes))


def test_c_teaches_the_student_what_the_teachers_head_makes_of_its_features() -> None:
    step = fakes.scene().step
    said, wanted = map(dense, made(strategy="c").compared(step))
    assert said is step.student.dense
    torch.testing.assert_close(wanted.logits, dense(made().predicted(step)).logits)
    assert not any(level.requires_grad for level in (*wanted.logits, *wanted.boxes))


def test_d_teaches_the_students_head_alone() -> None:
    scene = fakes.scene()
    sum(made(strategy="d", cut=1)(scene.step).values()).backward()  # type: ignore[union-attr]
    assert all(level.grad is None for level in scene.student_neck)
    assert scene.student_head.cls_tower[0].weight.grad is None
    assert scene.student_head.cls_tower[1].weight.grad is not None
    assert all(parameter.grad is None for parameter in scene.teacher_head.parameters())


@pytest.mark.parametrize("strategy", ["b", "d"])
def test_the_students_head_reads_what_has_its_own_statistics(strategy: str) -> None:
    scene = fakes.scene()
    for level in (*scene.step.teacher.towers.cls[2], *scene.step.teacher.towers.reg[2]):
        level.mul_(3.0)
    pair = made(strategy=strategy, cut=2).compared(scene.step)
    own = fakes.scene().step
    again = made(strategy=strategy, cut=2).compared(own)
    crossed = 1 if strategy == "b" else 0
    torch.testing.assert_close(
        dense(pair[crossed]).logits, dense(again[crossed]).logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("strategy", "refused"), [("b", False), ("c", True), ("d", True)])
def test_predictions_of_two_heads_need_the_same_priors(strategy: str, *, refused: bool) -> None:
    pair = fakes.spec("retinanet"), fakes.spec("gfl")
    method = CrossKD(strategy=strategy)  # type: ignore[arg-type]
    if refused:
        with pytest.raises(UnsuitablePairError, match="equally many priors per cell"):
            method.setup(*pair)
    else:
        method.setup(*pair)
        assert all(term.isfinite() for term in method(fakes.scene(pair[1], pair[0]).step).values())


# What it costs


def test_positives_and_negatives_make_up_the_whole_class_term() -> None:
    step = fakes.scene().step
    parts = [made(cls_on=part)(step) for part in ("positive", "negative")]
    whole = made()(step)
    assert all(0 < part["cls"] < whole["cls"] for part in parts)
    torch.testing.assert_close(parts[0]["cls"] + parts[1]["cls"], whole["cls"])
    assert all(torch.equal(part["box"], whole["box"]) for part in parts)


def test_beta_zero_is_binary_cross_entropy() -> None:
    method, step = made(beta=0.0), fakes.scene().step
    said = dense(method.predicted(step)).flat_logits()
    target = step.teacher.dense.flat_logits().sigmoid()
    loss = F.binary_cross_entropy_with_logits(said, target, reduction="none").sum(dim=-1)
    wanted = (loss * step.targets.weights).sum() / step.targets.positives
    torch.testing.assert_close(method(step)["cls"], wanted)


@pytest.mark.parametrize(("weight", "silent"), [("cls_weight", "cls"), ("box_weight", "box")])
def test_each_branch_can_be_crossed_alone(weight: str, silent: str) -> None:
    step = fakes.scene().step
    alone, both = made(**{weight: 0.0})(step), made()(step)
    assert alone.pop(silent) == 0
    assert all(torch.equal(term, both[name]) for name, term in alone.items())


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


def test_what_centerness_is_beside_the_objects_does_not_count() -> None:
    dense = fakes.scene(fakes.spec("atss")).step.student.dense
    assert dense.quality is not None
    *fine, coarse = dense.quality
    broken = dataclasses.replace(dense, quality=(*fine, torch.full_like(coarse, math.nan)))
    positive = torch.zeros(dense.flat_quality().shape, dtype=torch.bool)
    positive[:, 3] = True
    values = [
        mimicry._centerness_term(
            mimicry.Comparison(said, dense, positive.float(), positive, torch.tensor(2.0))
        )
        for said in (dense, broken)
    ]
    assert values[0].isfinite()
    assert values[0] == values[1] > 0
