from __future__ import annotations

import numpy as np
import pytest
import torch
from tests import fakes

from detdistill.methods.chen import Chen
from detdistill.structures import Step


def made(facts: fakes.Spec | None = None, **settings: object) -> Chen:
    method = Chen(**settings)  # type: ignore[arg-type]
    method.setup(facts or fakes.spec(), facts or fakes.spec())
    return method


def errors(step: Step, image: int, prior: int) -> list[float]:
    """Squared error of the student's and of the teacher's box, in the larger of two sizes."""
    target, anchor = step.targets.boxes[image, prior], step.student.dense.flat_priors()[prior]
    size = torch.maximum(target[2:] - target[:2], anchor[2:] - anchor[:2]).repeat(2)
    said = [o.dense.decoded().detach()[image, prior] for o in (step.student, step.teacher)]
    return [float((((box - target) / size) ** 2).sum()) for box in said]


@pytest.mark.parametrize("kind", ["gfl", "retinanet", "fcos"])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_a_box_is_corrected_where_it_is_not_better_than_the_teachers(
    kind: fakes.Kind, margin: float
) -> None:
    facts = fakes.spec(kind)
    step = fakes.scene(facts, dtype=torch.float64).step
    total, silent = 0.0, 0
    for image, prior in np.argwhere(step.targets.labels.numpy() < 3):
        ours, theirs = errors(step, image, prior)
        counts = ours + margin > theirs
        total += counts * ours
        silent += not counts
    wanted = 0.5 * total / float(step.targets.positives)
    assert float(made(facts, margin=margin)(step)["box"].detach()) == pytest.approx(
        wanted, rel=1e-6
    )
    assert silent > 0


@pytest.mark.parametrize("background", [1.0, 1.5])
def test_classes_are_averaged_over_positives_and_over_background(background: float) -> None:
    step = fakes.scene(dtype=torch.float64).step
    p, q = (o.dense.flat_logits().detach().sigmoid().numpy() for o in (step.student, step.teacher))
    each = -(q * np.log(p) + background * (1 - q) * np.log(1 - p)).sum(axis=-1)
    counted, labels = step.targets.weights.numpy() > 0, step.targets.labels.numpy()
    wanted = (each[counted & (labels < 3)].mean() + each[counted & (labels == 3)].mean()) / 2
    term = made(background=background)(step)["cls"]
    assert float(term.detach()) == pytest.approx(wanted, rel=1e-9)


def test_the_hint_is_the_mean_squared_difference_of_the_necks() -> None:
    step = fakes.scene(dtype=torch.float64).step
    pairs = zip(step.student.neck, step.teacher.neck, strict=True)
    wanted = np.mean([((s.detach() - t).numpy() ** 2).mean() for s, t in pairs])
    assert float(made()(step)["hint"].detach()) == pytest.approx(wanted / 2, rel=1e-9)


def test_a_student_like_its_teacher_gets_no_correction_of_its_boxes() -> None:
    terms = made()(fakes.scene(same=True).step)
    assert terms["box"] == terms["hint"] == 0
