from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes
from torch import Tensor
from torch.nn import functional as F

from detdistill.methods import UnsuitablePairError
from detdistill.methods.pkd import PKD
from detdistill.structures import Step


def with_teacher_neck(step: Step, *levels: Tensor) -> Step:
    """The step as if the teacher had said so."""
    return dataclasses.replace(step, teacher=dataclasses.replace(step.teacher, neck=levels))


def made(**settings: object) -> PKD:
    method = PKD(**settings)  # type: ignore[arg-type]
    method.setup(fakes.spec(), fakes.spec())
    return method


def test_it_is_one_minus_the_pearson_correlation_of_each_channel() -> None:
    step = fakes.scene().step
    for i, term in enumerate(made(weight=1.0)(step).values()):
        student, teacher = (
            output.neck[i].transpose(0, 1).flatten(1) for output in (step.student, step.teacher)
        )
        correlation = [
            torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(student, teacher, strict=True)
        ]
        count = student.shape[1]
        wanted = (count - 1) / count * (1 - torch.stack(correlation)).mean()
        torch.testing.assert_close(term, wanted)


def test_the_teachers_scale_and_shift_do_not_matter() -> None:
    step = fakes.scene().step
    other = with_teacher_neck(step, *(level * 5 + 3 for level in step.teacher.neck))
    torch.testing.assert_close(made()(step), made()(other), rtol=1e-4, atol=1e-5)


def test_it_can_be_limited_to_some_levels() -> None:
    step = fakes.scene().step
    some, every = made(levels=(0, 2))(step), made()(step)
    assert list(some) == ["level0", "level2"]
    assert torch.equal(some["level2"], every["level2"])


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_maps_of_different_size_are_resized(side: str) -> None:
    step = fakes.scene().step
    small = F.avg_pool2d(step.teacher.neck[0], 2)
    other = with_teacher_neck(step, small, *step.teacher.neck[1:])
    term = made(resize=side, levels=(0,))(other)["level0"]
    student, teacher = step.student.neck[0], small
    if side == "student":
        student = F.interpolate(student, size=small.shape[-2:], mode="bilinear")
    else:
        teacher = F.interpolate(teacher, size=student.shape[-2:], mode="bilinear")
    equal = dataclasses.replace(step, student=dataclasses.replace(step.student, neck=(student,)))
    wanted = made(levels=(0,))(with_teacher_neck(equal, teacher))["level0"]
    torch.testing.assert_close(term, wanted)


def test_a_level_of_one_element_contributes_nothing() -> None:
    scene = fakes.scene(batch=1, size=8)
    assert all(term == 0 for term in made()(scene.step).values())


def test_different_widths_are_refused_with_a_remedy() -> None:
    with pytest.raises(UnsuitablePairError, match=r"12 channels and the student's 8: .*fitnet"):
        PKD().setup(fakes.spec(channels=12), fakes.spec(channels=8))


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="level 3, but the necks have levels 0 to 2"):
        made(levels=(0, 3))


@pytest.mark.parametrize(
    ("on", "names"), [("cls", ["cls"]), ("reg", ["reg"]), ("head", ["cls", "reg"])]
)
def test_head_towers_can_correlate_instead_of_necks(on: str, names: list[str]) -> None:
    method, step = made(on=on, cut=2), fakes.scene().step
    assert method.reads.towers == {2}
    terms = method(step)
    assert list(terms) == [f"{name}{level}" for name in names for level in range(3)]
    for name in names:
        student, teacher = (getattr(o.towers, name)[2] for o in (step.student, step.teacher))
        as_necks = dataclasses.replace(step.student, neck=student)
        on_necks = with_teacher_neck(dataclasses.replace(step, student=as_necks), *teacher)
        wanted = made()(on_necks)
        assert all(torch.equal(terms[f"{name}{i}"], wanted[f"level{i}"]) for i in range(3))


def test_necks_are_read_without_any_tower() -> None:
    assert not made().reads.towers


def test_a_block_that_the_towers_do_not_have_is_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="set cut from 0 to 2"):
        made(on="head", cut=3)


def test_towers_of_detectors_without_towers_are_refused() -> None:
    region = dataclasses.replace(fakes.spec(), family="region")
    with pytest.raises(UnsuitablePairError, match="head towers, which region detectors"):
        PKD(on="cls", cut=0).setup(region, fakes.spec())


def test_heads_of_different_width_are_refused_though_their_necks_are_equal() -> None:
    with pytest.raises(UnsuitablePairError, match="teacher's head has 12 channels"):
        PKD(on="cls", cut=1).setup(fakes.spec(tower_channels=12), fakes.spec())


@pytest.mark.filterwarnings("ignore:std")
def test_one_element_is_nan_only_as_released() -> None:
    step = fakes.scene(batch=1, size=8).step
    assert all(term == 0 for term in made()(step).values())
    assert all(term.isnan() for term in made(lone=False)(step).values())
