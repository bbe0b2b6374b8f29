"""A teacher that sees the pictures larger or smaller than its student."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests import fakes
from tests.fake_queries import FakeQueryHead
from tests.train.fakes import batch

from detdistill import detectors, methods
from detdistill.levels import Levels
from detdistill.methods import Method, UnsuitablePairError, combine
from detdistill.structures import DetectorOutput, Spec
from detdistill.train.other_scale import OtherScale
from detdistill.train.step import Losses, TrainStep

CLASSES = ("circle", "square", "star")


def facts(*strides: int, kind: fakes.Kind = "gfl") -> Spec:
    return fakes.spec(kind, strides=strides)


def neck(spec: Spec, size: int) -> Levels:
    return tuple(torch.randn(2, spec.channels, size // s, size // s) for s in spec.strides)


@pytest.mark.parametrize(
    ("factor", "levels"),
    [(1.0, (0, 1, 2)), (2.0, (1, 2, 2)), (4.0, (2, 2, 2)), (0.5, (0, 0, 1)), (1.4, (0, 1, 2))],
)
def test_a_level_gets_the_one_that_sees_objects_of_its_size(
    factor: float, levels: tuple[int, ...]
) -> None:
    same = facts(8, 16, 32)
    assert OtherScale(factor, same, same).levels == levels


def test_maps_come_in_the_students_sizes() -> None:
    same = facts(8, 16, 32)
    mine = neck(same, 96)
    for factor in (2.0, 1.5, 0.5):
        scale = OtherScale(factor, same, same)
        theirs = DetectorOutput(neck=neck(same, int(96 * factor)))
        assert [m.shape for m in scale.output(theirs, mine).neck] == [m.shape for m in mine]


def test_what_lies_exactly_on_each_other_is_not_resized() -> None:
    teacher, student = facts(8, 16, 32, 64), facts(8, 16, 32)
    theirs = neck(teacher, 256)
    found = OtherScale(2.0, teacher, student).output(
        DetectorOutput(neck=theirs), neck(student, 128)
    )
    assert all(a is b for a, b in zip(found.neck, theirs[1:], strict=True))


@pytest.mark.parametrize("kind", ["gfl", "atss", "retinanet", "fcos"])
def test_boxes_of_cells_are_the_same_pixels_of_the_picture(kind: fakes.Kind) -> None:
    teacher, student = facts(8, 16, 32, 64, kind=kind), facts(8, 16, 32, kind=kind)
    said = fakes.FakeHead(teacher)(neck(teacher, 256))
    found = OtherScale(2.0, teacher, student).output(said, neck(student, 128)).dense
    mine = fakes.FakeHead(student)(neck(student, 128)).dense
    finest = len(said.dense.priors[0])
    torch.testing.assert_close(found.decoded() * 2, said.dense.decoded()[:, finest:])
    torch.testing.assert_close(found.flat_priors(), mine.flat_priors())
    assert torch.equal(found.flat_logits(), said.dense.flat_logits()[:, finest:])
    assert found.strides == mine.strides


def test_a_neck_that_nobody_reads_needs_no_counterpart() -> None:
    teacher, student = facts(8, 16, 32, 64), facts(8, 16, 32)
    said = fakes.FakeHead(teacher)(neck(teacher, 256))
    scale = OtherScale(2.0, teacher, student)
    wanted, found = (
        scale.output(each, neck(student, 128)) for each in (said, replace(said, neck=()))
    )
    assert wanted.neck
    assert not found.neck
    assert torch.equal(found.dense.decoded(), wanted.dense.decoded())


def test_boxes_of_queries_are_the_same_pixels_of_the_picture() -> None:
    same = facts(8, 16, kind="query")
    said = FakeQueryHead(same)(neck(same, 96))
    found = OtherScale(1.5, same, same).output(said, neck(same, 64)).queries
    for mine, theirs in zip(found.boxes, said.queries.boxes, strict=True):
        torch.testing.assert_close(mine * 1.5, theirs)


def test_pictures_and_their_sizes_grow_together() -> None:
    same = facts(8)
    pictures = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    pictures[..., :40, :48] = 200
    images, sizes = OtherScale(1.5, same, same).pictures(pictures, torch.tensor([[40, 48]]))
    assert images.shape == (1, 3, 96, 96)
    assert sizes.tolist() == [[60, 72]]
    assert images[..., :59, :71].min() > 199
    assert images[..., 61:, 73:].max() == 0


def step_of(method: Method, family: str = "gfl", **settings: float) -> TrainStep:
    torch.manual_seed(0)
    student, teacher = (detectors.build(f"{family}-mini-w{w}", CLASSES) for w in (8, 16))
    return TrainStep(student, teacher, {"it": method}, **settings)  # type: ignore[arg-type]


def losses_of(name: str, **settings: float) -> Losses:
    return step_of(methods.find(name)(), **settings)(batch())  # type: ignore[arg-type]


def test_factor_one_is_bit_for_bit_none() -> None:
    plain, one = losses_of("crosskd"), losses_of("crosskd", teacher_scale=1.0)
    assert all(torch.equal(plain[name], one[name]) for name in plain)


def test_the_neck_is_imitated_at_another_scale() -> None:
    plain, double = losses_of("pkd"), losses_of("pkd", teacher_scale=2.0)
    for name, loss in double.items():
        assert loss.isfinite()
        assert torch.equal(loss, plain[name]) == name.startswith("task/")


@pytest.mark.parametrize(
    ("name", "part"), [("crosskd", "head towers"), ("kd", "predictions"), ("tid", "predictions")]
)
def test_what_cannot_be_aligned_is_refused(name: str, part: str) -> None:
    with pytest.raises(UnsuitablePairError, match=f"it reads the teacher's {part}.*pkd"):
        losses_of(name, teacher_scale=2.0)


@pytest.mark.parametrize(
    ("name", "settings"), [("crosskd", {}), ("defeat", {"proposals": "student"})]
)
def test_a_second_stage_is_not_asked_at_another_scale(name: str, settings: dict[str, str]) -> None:
    with pytest.raises(UnsuitablePairError, match=r"it reads the teacher's head, .*pkd"):
        step_of(combine.build(name, settings), "faster_rcnn", teacher_scale=2.0)


def test_the_necks_of_two_stages_are_imitated_at_another_scale() -> None:
    step = step_of(combine.build("defeat", {"proposals": "none"}), "faster_rcnn", teacher_scale=2.0)
    assert all(loss.isfinite() for loss in step(batch()).values())


def test_predictions_are_taken_where_every_stride_has_its_counterpart() -> None:
    student = facts(8, 16, 32)
    kd = {"kd": methods.find("kd")()}
    taller = OtherScale(2.0, facts(8, 16, 32, 64), student)
    kd["kd"].setup(taller.spec, student)
    taller.check(kd)
    with pytest.raises(UnsuitablePairError, match="predictions"):
        OtherScale(1.5, replace(student), student).check(kd)
