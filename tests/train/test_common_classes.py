"""Two detectors seen as detectors of the classes that both know."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests import fakes
from tests.train.fakes import batch
from torch import nn

from detdistill import detectors, methods
from detdistill.classes import match
from detdistill.detectors import Detector
from detdistill.structures import Spec
from detdistill.train.common_classes import CommonClasses, Narrowed
from detdistill.train.step import Losses, TrainStep

CLASSES = ("circle", "square", "star")


@pytest.fixture
def narrowed() -> Narrowed:
    """Of the classes 0, 1, 2 and 3 the last and the second are left."""
    return Narrowed((3, 1), 4)


def test_objects_of_other_classes_are_not_valid(narrowed: Narrowed) -> None:
    whole = fakes.truth(batch=1, objects=4)
    whole.labels[0] = torch.tensor([0, 1, 2, 3, 0])
    found = narrowed.truth(whole)
    assert found.valid.tolist() == [[False, True, False, True, False]]
    assert found.labels[found.valid].tolist() == [1, 0]
    assert found.boxes is whole.boxes


def test_priors_of_other_classes_are_ignored_and_background(narrowed: Narrowed) -> None:
    targets = fakes.scene(fakes.spec("gfl", classes=4)).step.targets
    was = torch.arange(targets.labels.numel()).view_as(targets.labels) % 5
    targets = replace(targets, labels=was)
    found, lost = narrowed.targets(targets), (was == 0) | (was == 2)
    assert (found.labels[lost] == 2).all()
    assert (found.weights[lost] == 0).all()
    assert (found.boxes[lost] == 0).all()
    assert (found.labels[was == 3] == 0).all()
    assert (found.labels[was == 4] == 2).all()
    assert torch.equal(found.weights[~lost], targets.weights[~lost])
    positive = (was == 1) | (was == 3)
    assert torch.equal(found.boxes[positive], targets.boxes[positive])


@pytest.mark.parametrize(("per_image", "counted"), [(True, 4), (False, 3)])
def test_the_normaliser_counts_what_is_left(
    narrowed: Narrowed, per_image: bool, counted: int
) -> None:
    targets = fakes.scene(fakes.spec("gfl", classes=4)).step.targets
    labels = torch.full_like(targets.labels, 4)
    labels[0, :5] = torch.tensor([1, 3, 3, 0, 2])
    labels[1, :2] = torch.tensor([0, 2])
    targets = replace(targets, labels=labels, per_image=per_image)
    assert narrowed.targets(targets).positives == counted
    assert narrowed.targets(targets, torch.zeros_like).positives == (0 if per_image else 1)


def test_regions_and_queries_of_other_classes_are_background(narrowed: Narrowed) -> None:
    for kind in ("rcnn", "query"):
        targets = fakes.scene(fakes.spec(kind, classes=4)).step.targets
        found = narrowed.targets(targets)
        for was, now in ((targets.regions, found.regions), (targets.matches, found.matches)):
            assert (was is None) == (now is None)
            if was is not None and now is not None:
                lost = (was.labels == 0) | (was.labels == 2)
                assert lost.any()
                assert (now.labels[lost] == 2).all()
                assert (now.boxes[lost] == 0).all()


def test_the_first_of_two_stages_keeps_its_one_class(narrowed: Narrowed) -> None:
    targets = fakes.scene(fakes.spec("rcnn", classes=4)).step.targets
    assert narrowed.targets(targets).labels is targets.labels


def test_a_second_stage_says_none_of_these_for_all_others(narrowed: Narrowed) -> None:
    step = fakes.scene(fakes.spec("rcnn", classes=4)).step
    assert step.targets.regions
    scores = step.targets.regions.scores
    found, was = narrowed.said(scores), scores.logits.softmax(dim=-1)
    now = found.logits.softmax(dim=-1)
    torch.testing.assert_close(now[..., :2], was[..., [3, 1]])
    torch.testing.assert_close(now[..., 2], was[..., [0, 2, 4]].sum(dim=-1))
    assert torch.equal(found.decoded(), scores.decoded()[:, :, [3, 1]])


def test_nothing_is_touched_where_all_classes_stay_as_they_are() -> None:
    step = fakes.scene(fakes.spec(classes=3)).step
    common = CommonClasses(match(("c", "a", "x", "b"), ("a", "b", "c")))
    found = common(replace(step, teacher=fakes.scene(fakes.spec(classes=4)).step.teacher))
    assert found.truth is step.truth
    assert found.targets is step.targets
    assert found.student_head is step.student_head
    assert found.student.predictions is step.student.predictions


def test_facts_have_the_classes_in_common() -> None:
    common = CommonClasses(match(("c", "x", "A"), ("a", "b", "c")))
    facts: Spec = common.spec(fakes.spec(classes=3))
    assert facts.classes == ("a", "c")


def in_another_order(detector: Detector, order: tuple[int, ...]) -> Detector:
    """The same one-stage detector with its classes in another order."""
    names = tuple(detector.spec.classes[number] for number in order)
    other = detectors.build("gfl-mini-w16", names)
    other.load_state_dict(detector.state_dict())
    layer = other.head.cls
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    layer.weight.data, layer.bias.data = (
        layer.weight[list(order)].data,
        layer.bias[list(order)].data,
    )
    return other


def losses_of(teacher: Detector) -> Losses:
    torch.manual_seed(0)
    student = detectors.build("gfl-mini-w8", CLASSES)
    chosen = {name: methods.find(name)() for name in ("crosskd", "tid")}
    found = match(teacher.spec.classes, CLASSES)
    return TrainStep(student, teacher, chosen, classes=found)(batch())


def test_the_order_of_the_teachers_classes_does_not_matter() -> None:
    torch.manual_seed(1)
    teacher = detectors.build("gfl-mini-w16", CLASSES)
    as_it_is, turned = losses_of(teacher), losses_of(in_another_order(teacher, (2, 0, 1)))
    for name, loss in as_it_is.items():
        torch.testing.assert_close(turned[name], loss)


def test_the_classes_in_common_are_no_part_of_a_checkpoint() -> None:
    teacher = detectors.build("gfl-mini-w16", ("star", "cat"))
    student = detectors.build("gfl-mini-w8", CLASSES)
    found = match(teacher.spec.classes, CLASSES)
    step = TrainStep(student, teacher, {"kd": methods.find("kd")()}, classes=found)
    assert not [key for key in step.state_dict() if key.startswith("common")]
