from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests import fakes

from detdistill import boxes
from detdistill.methods import UnsuitablePairError, combine
from detdistill.methods.crosskd import CrossKD
from detdistill.methods.kd import KD
from detdistill.structures import DensePredictions, Step, Towers


def made(
    teacher: fakes.Spec | None = None, student: fakes.Spec | None = None, **settings: object
) -> KD:
    method = KD(**settings)  # type: ignore[arg-type]
    method.setup(teacher or fakes.spec(), student or teacher or fakes.spec())
    return method


class Replay:
    """A head that says what the student says."""

    def __init__(self, said: DensePredictions) -> None:
        self.said = said

    def resume(self, towers: Towers, *, start: int) -> DensePredictions:  # noqa: ARG002
        return self.said


@pytest.mark.parametrize("kind", ["gfl", "atss", "retinanet", "fcos"])
def test_it_is_crosskd_of_the_students_own_predictions(kind: fakes.Kind) -> None:
    facts = fakes.spec(kind)
    step = fakes.scene(facts).step
    crossing = CrossKD()
    crossing.setup(facts, facts)
    uncrossed = dataclasses.replace(step, teacher_head=Replay(step.student.dense))
    wanted = crossing(uncrossed)
    terms = made(facts)(step)
    assert set(terms) == set(wanted)
    assert all(torch.equal(terms[name], wanted[name]) for name in terms)


def test_the_class_term_is_that_of_a_loop() -> None:
    step = fakes.scene(dtype=torch.float64).step
    student, teacher = (o.dense.flat_logits().detach() for o in (step.student, step.teacher))
    total = 0.0
    for z, t, weight in zip(
        student.flatten(0, 1), teacher.flatten(0, 1), step.targets.weights.flatten(), strict=True
    ):
        p, q = z.sigmoid(), t.sigmoid()
        cross = -(q * p.log() + (1 - q) * (1 - p).log())
        total += float(weight * ((p - q).abs() * cross).sum())
    wanted = total / float(step.targets.positives)
    torch.testing.assert_close(float(made()(step)["cls"].detach()), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("classes", ["binary", "softmax"])
def test_classes_may_be_questions_or_one_distribution(classes: str, temperature: float) -> None:
    step = fakes.scene(dtype=torch.float64).step
    said = [o.dense.flat_logits().detach().numpy() for o in (step.student, step.teacher)]
    total = 0.0
    for z, t, weight in zip(
        *(x.reshape(-1, 3) / temperature for x in said),
        step.targets.weights.flatten().tolist(),
        strict=True,
    ):
        if classes == "softmax":
            p, q = (np.exp(x) / np.exp(x).sum() for x in (z, t))
            lost = (q * np.log(q / p)).sum()
        else:
            p, q = (1 / (1 + np.exp(-x)) for x in (z, t))
            lost = (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))).sum()
        total += weight * temperature**2 * lost
    wanted = total / float(step.targets.positives)
    term = made(classes=classes, cls_temperature=temperature)(step)["cls"]
    assert float(term.detach()) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("classes", ["focal", "binary", "softmax"])
def test_every_distance_of_classes_is_zero_where_both_agree(classes: str) -> None:
    assert made(classes=classes)(fakes.scene(same=True).step)["cls"].abs() < 1e-6


def test_boxes_of_other_heads_are_compared_as_boxes() -> None:
    teacher, student = fakes.spec("gfl"), fakes.spec("atss")
    step: Step = fakes.scene(student, teacher).step
    said, wanted = step.student.dense.decoded(), step.teacher.dense.decoded()
    sure = step.teacher.dense.flat_logits().sigmoid().amax(dim=-1) * (step.targets.weights > 0)
    loss = ((1 - boxes.giou(said, wanted)) * sure).sum() / step.targets.positives
    torch.testing.assert_close(made(teacher, student)(step)["box"], loss)


def test_other_priors_are_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="kd needs equally many priors"):
        made(fakes.spec("retinanet"), fakes.spec("atss"))


def test_beside_crosskd_it_is_doubted_with_the_table_that_shows_why() -> None:
    (reason,) = combine.conflicts(combine.parse("crosskd+kd"))
    assert "CrossKD, table 4" in reason
