"""What every method must do with a teacher of other classes, without knowing of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tests import fakes
from tests.contract.test_methods import made
from torch import Tensor, nn

from detdistill.classes import ClassMatch, match
from detdistill.methods import Method, UnsuitablePairError, find, names
from detdistill.structures import Spec, Step
from detdistill.train.common_classes import CommonClasses

ALL = names()
KINDS: tuple[fakes.Kind, ...] = ("gfl", "retinanet", "rcnn", "query")
MINE = ("a", "b", "c", "d", "e")
EIGHTY = tuple(f"other {i}" for i in range(75))
THEIRS = ("e", *EIGHTY[:30], "b", "a", *EIGHTY[30:70], "d", *EIGHTY[70:], "c")
WITHOUT_C_AND_E = (*EIGHTY, "x", "d", "b", "a", "y")


def pair(kind: fakes.Kind, theirs: tuple[str, ...]) -> tuple[Spec, Spec]:
    """A student of five classes and a teacher of eighty."""
    facts = fakes.spec(kind)
    return replace(facts, classes=MINE), replace(facts, classes=theirs)


Case = tuple[Method, CommonClasses, fakes.Scene]


def suited(name: str, theirs: tuple[str, ...]) -> list[Case]:
    """The method with a pair of each kind that it fits, its classes in common, and a step."""
    found = list(_suited(name, theirs))
    assert found, "gfl suits every method"
    return found


def _suited(name: str, theirs: tuple[str, ...]) -> Iterator[Case]:
    for kind in KINDS:
        student, teacher = pair(kind, theirs)
        if student.family not in find(name).families:
            continue
        common = CommonClasses(match(theirs, MINE))
        scene = fakes.scene(student, teacher)
        try:
            method = made(name, common.spec(student), common.spec(teacher))
        except UnsuitablePairError:
            continue
        yield method, common, scene


def with_rows(layer: nn.Module, rows: Tensor) -> nn.Module:
    """A layer with some of its outputs, in another order."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    assert layer.bias is not None
    layer.weight, layer.bias = nn.Parameter(layer.weight[rows]), nn.Parameter(layer.bias[rows])
    return layer


def as_if_trained_on(found: ClassMatch, scene: fakes.Scene) -> Step:
    """The same step with a teacher that has never heard of other classes than the student's."""
    head, kept = scene.teacher_head, torch.tensor([their for their, _ in found.pairs])
    classes = len(found.theirs)
    if isinstance(head, fakes.FakeHead):
        firsts = torch.arange(head.facts.priors_per_cell).unsqueeze(1) * classes
        with_rows(head.cls, (firsts + kept).flatten())
    elif isinstance(head, fakes.FakeRegionHead):
        with_rows(head.cls, torch.cat([kept, torch.tensor([classes])]))
        with_rows(head.reg, (kept.unsqueeze(1) * 4 + torch.arange(4)).flatten())
    else:
        for stage in head.cls:
            with_rows(stage, kept)
    head.facts = replace(head.facts, classes=found.mine)
    head.requires_grad_(requires_grad=False)
    return replace(scene.step, teacher=fakes.detached(head(scene.teacher_neck)))


def never_says_others(scene: fakes.Scene) -> None:
    """Makes the second stage sure that nothing is of a class that the student does not know."""
    if isinstance(scene.teacher_head, fakes.FakeRegionHead):
        known = torch.tensor([name in MINE for name in THEIRS] + [True])
        scene.teacher_head.cls.bias.data.masked_fill_(~known, -1e4)


@pytest.mark.parametrize("name", ALL)
def test_it_learns_as_from_a_teacher_of_its_own_classes(name: str) -> None:
    for method, common, scene in suited(name, THEIRS):
        never_says_others(scene)
        terms = method(common(scene.step))
        wanted = method(as_if_trained_on(match(THEIRS, MINE), scene))
        for term, value in terms.items():
            torch.testing.assert_close(value, wanted[term])


@pytest.mark.parametrize("name", ALL)
def test_classes_that_the_teacher_does_not_know_are_left_alone(name: str) -> None:
    for method, common, scene in suited(name, WITHOUT_C_AND_E):
        for term in method(common(scene.step)).values():
            assert term.isfinite()
            left_alone(term, scene.step)


def left_alone(term: Tensor, step: Step) -> None:
    """No gradient reaches classes c and e; of a softmax, none that prefers background to them."""
    if step.targets.regions is not None:
        logits = step.targets.regions.scores.logits
        (found,) = torch.autograd.grad(term, logits, retain_graph=True, allow_unused=True)
        if found is not None:
            others = [MINE.index("c"), MINE.index("e"), len(MINE)]
            pulls = (found / logits.softmax(dim=-1))[..., others]
            torch.testing.assert_close(pulls[..., :-1], pulls[..., -1:].expand_as(pulls[..., :-1]))
        return
    levels = step.student.predictions.logits  # type: ignore[union-attr]
    for found in torch.autograd.grad(term, levels, retain_graph=True, allow_unused=True):
        if found is not None:
            of_classes = found.movedim(1, -1) if found.ndim == 4 else found
            of_classes = of_classes.unflatten(-1, (-1, len(MINE)))
            assert (of_classes[..., [MINE.index("c"), MINE.index("e")]] == 0).all()


@pytest.mark.parametrize("kind", ["gfl", "rcnn", "query"])
def test_it_compiles_to_the_same_numbers(kind: fakes.Kind) -> None:
    student, teacher = pair(kind, WITHOUT_C_AND_E)
    common = CommonClasses(match(WITHOUT_C_AND_E, MINE))
    method = made("crosskd", common.spec(student), common.spec(teacher))
    step = fakes.scene(student, teacher).step
    torch.compiler.reset()
    compiled = torch.compile(lambda step: method(common(step)), backend="eager", fullgraph=True)
    for term, wanted in method(common(step)).items():
        torch.testing.assert_close(compiled(step)[term], wanted)
