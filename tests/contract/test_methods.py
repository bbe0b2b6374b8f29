"""What every method must do, whichever it is; a new method joins by existing."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Mapping
from contextlib import nullcontext

import pytest
import torch
from tests import fakes, gpu
from torch import Tensor

from detdistill.methods import Method, UnsuitablePairError, combine, find, names
from detdistill.methods.method import Looking

ALL = names()
KINDS: tuple[fakes.Kind, ...] = ("gfl", "atss", "retinanet", "fcos", "rcnn", "query")
ONE_OF_EACH_FAMILY: tuple[fakes.Kind, ...] = ("gfl", "rcnn", "query")
pytestmark = pytest.mark.parametrize("name", ALL)


def made(
    name: str,
    student: fakes.Spec | None = None,
    teacher: fakes.Spec | None = None,
    **settings: object,
) -> Method:
    """The method, fitted to a pair."""
    torch.manual_seed(0)
    method = combine.build(name, settings)
    student = student or fakes.spec()
    combine.setup({name: method}, teacher or student, student)
    return method


def suited(name: str) -> list[fakes.Spec]:
    """A detector of each family that the method says it fits."""
    each = map(fakes.spec, ONE_OF_EACH_FAMILY)
    return [facts for facts in each if facts.family in find(name).families]


def terms_or_refusal(name: str, facts: fakes.Spec, scene: fakes.Scene) -> Mapping[str, Tensor]:
    """What the method makes of a kind of head; nothing if it refuses the kind with a remedy."""
    try:
        method = made(name, facts)
    except UnsuitablePairError as refusal:
        message = str(refusal)
    else:
        return method(scene.step)
    assert not facts.bins, "gfl suits every method"
    assert re.match(rf"{name} .*: (choose|leave|set) ", message)
    return {}


def check_that_nothing_explodes(name: str, facts: fakes.Spec, scene: fakes.Scene) -> None:
    """Values and gradients of all terms, with the method's defaults."""
    for term in terms_or_refusal(name, facts, scene).values():
        assert term.isfinite()
        assert term.abs() < 1e6
        assert all(gradient.isfinite().all() for gradient in gradients(term, scene))


def zero_weights(name: str) -> dict[str, float]:
    """Settings that switch off every term."""
    fields = dataclasses.fields(find(name))  # type: ignore[arg-type]
    return {f.name: 0.0 for f in fields if f.name == "weight" or f.name.endswith("_weight")}


def gradients(term: Tensor, scene: fakes.Scene) -> list[Tensor]:
    """Of one term with respect to everything the student made."""
    found = torch.autograd.grad(term, scene.student_neck, retain_graph=True, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def test_terms_are_finite_scalars(name: str) -> None:
    for facts in suited(name):
        terms = made(name, facts)(fakes.scene(facts).step)
        assert terms
        for term in terms.values():
            assert term.shape == ()
            assert term.isfinite()


def test_every_term_reaches_the_student(name: str) -> None:
    for facts in suited(name):
        scene = fakes.scene(facts)
        for term in made(name, facts)(scene.step).values():
            assert any(gradient.abs().max() > 0 for gradient in gradients(term, scene))


def test_no_term_reaches_the_teacher(name: str) -> None:
    for facts in suited(name):
        scene = fakes.scene(facts)
        sum(made(name, facts)(scene.step).values()).backward()  # type: ignore[union-attr]
        assert all(level.grad is None for level in scene.teacher_neck)
        assert all(parameter.grad is None for parameter in scene.teacher_head.parameters())


def test_every_term_depends_on_the_teacher(name: str) -> None:
    for facts in suited(name):
        method, step = made(name, facts), fakes.scene(facts).step
        other = fakes.scene(facts, seed=1)
        changed = dataclasses.replace(
            step, teacher=other.step.teacher, teacher_head=other.teacher_head
        )
        before, after = method(step), method(changed)
        assert all(not torch.equal(before[term], after[term]) for term in before)


def test_it_enters_the_teachers_head_only_if_it_says_so(name: str) -> None:
    for facts in suited(name):
        method, step = made(name, facts), fakes.scene(facts).step
        headless = dataclasses.replace(step, teacher_head=None)
        with pytest.raises(AttributeError) if method.reads.head else nullcontext():
            method(headless)


def test_it_reads_the_teachers_neck_only_if_it_says_so(name: str) -> None:
    for facts in suited(name):
        method, step = made(name, facts), fakes.scene(facts).step
        neckless = dataclasses.replace(step.teacher, neck=())
        without = dataclasses.replace(step, teacher=neckless)
        torch.manual_seed(1)
        wanted = method(step)
        torch.manual_seed(1)
        if method.reads.neck:
            with pytest.raises((ValueError, IndexError, RuntimeError)):
                method(without)
        else:
            assert all(torch.equal(wanted[term], found) for term, found in method(without).items())


def test_a_student_like_its_teacher_loses_nothing(name: str) -> None:
    for facts in suited(name):
        method = made(name, facts)
        terms = method(fakes.scene(facts, same=True).step)
        assert all(term.abs() < 1e-6 for term in terms.values()) == method.agrees


def test_an_image_without_objects_is_fine(name: str) -> None:
    scene = fakes.scene()
    scene.step.truth.valid[0] = False
    terms = made(name)(scene.step)
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_objects_has_finite_values_and_gradients(
    name: str, kind: fakes.Kind
) -> None:
    check_that_nothing_explodes(name, fakes.spec(kind), fakes.scene(fakes.spec(kind), objects=0))


def test_a_batch_whose_every_prior_is_ignored_is_fine(name: str) -> None:
    scene = fakes.scene()
    blank = dataclasses.replace(
        scene.step.targets, weights=torch.zeros_like(scene.step.targets.weights)
    )
    for term in made(name)(dataclasses.replace(scene.step, targets=blank)).values():
        assert term.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients(term, scene))


@pytest.mark.parametrize("kind", KINDS)
def test_one_cell_of_one_image_is_fine(name: str, kind: fakes.Kind) -> None:
    facts = fakes.spec(kind)
    check_that_nothing_explodes(name, facts, fakes.scene(facts, batch=1, size=8))


@pytest.mark.parametrize("kind", KINDS)
def test_objects_that_are_assigned_to_nothing_are_fine(name: str, kind: fakes.Kind) -> None:
    facts = fakes.spec(kind)
    scene = fakes.scene(facts)
    missed = fakes.without_positives(scene.step.targets, facts)
    missing = dataclasses.replace(scene, step=dataclasses.replace(scene.step, targets=missed))
    check_that_nothing_explodes(name, facts, missing)


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_are_mostly_padding_are_fine(name: str, kind: fakes.Kind) -> None:
    facts = fakes.spec(kind)
    scene = fakes.scene(facts)
    truth = scene.step.truth
    small = dataclasses.replace(truth, boxes=truth.boxes / 4, sizes=truth.sizes // 4)
    padded = dataclasses.replace(scene, step=dataclasses.replace(scene.step, truth=small))
    check_that_nothing_explodes(name, facts, padded)


def test_all_parameters_of_the_method_learn(name: str) -> None:
    wide = fakes.spec(channels=12)
    try:
        method = made(name, teacher=wide)
    except UnsuitablePairError:
        method = made(name)
        wide = fakes.spec()
    for _ in range(2):  # what stands before a layer of zeros learns once that layer has
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter.data -= parameter.grad / parameter.grad.abs().max().clamp(min=1e-30)
                parameter.grad = None
        for size in (64, 320):  # objects for every level
            step = fakes.scene(teacher=wide, size=size).step
            sum(method(step).values()).backward()  # type: ignore[union-attr]
    for parameter in method.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_necks_of_different_width_are_adapted_or_refused(name: str) -> None:
    narrow, wide = fakes.spec(channels=4), fakes.spec(channels=12)
    try:
        method = made(name, student=narrow, teacher=wide)
    except UnsuitablePairError as refusal:
        message = str(refusal)
    else:
        assert all(term.isfinite() for term in method(fakes.scene(narrow, wide).step).values())
        return
    assert message.startswith(name)
    assert "12 channels" in message
    assert ":" in message


def test_pyramids_of_different_height_are_refused(name: str) -> None:
    with pytest.raises(UnsuitablePairError, match=name):
        made(name, teacher=fakes.spec(strides=(8, 16)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_head_can_teach_and_learn_or_is_refused(name: str, kind: fakes.Kind) -> None:
    facts = fakes.spec(kind)
    scene = fakes.scene(facts)
    for term in terms_or_refusal(name, facts, scene).values():
        assert term.isfinite()
        assert any(gradient.abs().max() > 0 for gradient in gradients(term, scene))


def test_it_computes_in_float32_under_autocast(name: str) -> None:
    for facts in suited(name):
        scene = fakes.scene(facts, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            terms = made(name, facts)(scene.step)
        for term in terms.values():
            assert term.dtype == torch.float32
            assert term.isfinite()


def test_nothing_comes_from_the_host_and_nothing_waits_for_the_gpu(name: str) -> None:
    for facts in suited(name):
        with gpu.made_up() as device:
            with device:
                method, scene = made(name, facts), fakes.scene(facts)
            terms = method(scene.step)
        assert {term.device.type for term in terms.values()} == {device.type}


def test_it_compiles_to_the_same_numbers(name: str) -> None:
    for facts in suited(name):
        method, scene = made(name, facts), fakes.scene(facts)
        torch.compiler.reset()
        compiled = torch.compile(method, backend="eager", fullgraph=not method.selects)
        found = compiled(scene.step)
        for term, wanted in method(scene.step).items():
            torch.testing.assert_close(found[term], wanted)
            torch.testing.assert_close(gradients(found[term], scene), gradients(wanted, scene))


@pytest.mark.parametrize("objects", [3, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_where_it_looks_is_a_map_of_every_level(name: str, kind: fakes.Kind, objects: int) -> None:
    facts = fakes.spec(kind)
    try:
        method = made(name, facts)
    except UnsuitablePairError:
        return
    if not isinstance(method, Looking):
        return
    scene = fakes.scene(facts, size=320, objects=objects)
    areas = method.areas(scene.step)
    assert areas
    for area in areas.values():
        for cells, level in zip(area, scene.step.teacher.neck, strict=True):
            assert cells.shape == level[:, 0].shape
            assert cells.isfinite().all()
            assert (cells >= 0).all()
            assert not cells.requires_grad
    assert objects == 0 or all(any(cells.any() for cells in area) for area in areas.values())


def test_weight_zero_gives_a_gradient_of_exactly_zero(name: str) -> None:
    settings = zero_weights(name)
    assert settings, "a method has weights, called weight or ..._weight"
    scene = fakes.scene()
    for term in made(name, **settings)(scene.step).values():
        assert term == 0
        assert all((gradient == 0).all() for gradient in gradients(term, scene))


def test_ranks_that_agree_compute_as_one(name: str) -> None:
    """Whatever is averaged over ranks is a count or a sum, so equal ranks change nothing."""
    seen: list[Tensor] = []

    def mean(value: Tensor) -> Tensor:
        seen.append(value)
        return value

    alone, together = fakes.scene(), fakes.scene(world_mean=mean)
    method = made(name)
    for term, value in method(alone.step).items():
        assert torch.equal(method(together.step)[term], value)
    assert all(value.shape == () and not value.requires_grad for value in seen)


def test_its_settings_are_written_as_they_were_given(name: str) -> None:
    method = made(name)
    assert all(f"{key}={value!r}" in repr(method) for key, value in method.settings().items())


def test_it_says_what_it_is_where_it_comes_from_and_where_it_departs(name: str) -> None:
    kind = find(name)
    text = sys.modules[kind.__module__].__doc__ or ""
    assert len(text.split("\n")[0]) > 20
    for line in ("Paper:", "Reads:", "Differs:"):
        assert f"\n{line}" in text
    assert "@" in kind.citation
    assert inspect.getdoc(kind)
