from __future__ import annotations

import numpy as np
import pytest
import torch
from tests import fakes

from detdistill.methods.pfi import PFI
from detdistill.structures import Step


def made(facts: fakes.Spec | None = None, **settings: object) -> PFI:
    method = PFI(**settings)  # type: ignore[arg-type]
    method.setup(facts or fakes.spec(), facts or fakes.spec())
    return method


def oracle(step: Step, level: int, *, norm: bool) -> float:
    """Image by image and cell by cell."""
    necks = [o.neck[level].detach().numpy() for o in (step.student, step.teacher)]
    logits = [o.dense.logits[level].detach().numpy() for o in (step.student, step.teacher)]
    scores = [1 / (1 + np.exp(-x)) for x in logits]
    images, _, height, width = necks[0].shape
    values = np.zeros((images, height * width))
    for image, row, column in np.ndindex(images, height, width):
        where = np.s_[image, :, row, column]
        apart = np.mean((scores[0][where] - scores[1][where]) ** 2)
        values[image, row * width + column] = apart * np.mean(
            (necks[0][where] - necks[1][where]) ** 2
        )
    if norm:
        return float(np.mean(np.sqrt((values**2).sum(axis=1)) / values.size))
    return float(values.mean())


@pytest.mark.parametrize("reduction", ["mean", "norm"])
@pytest.mark.parametrize("kind", ["gfl", "retinanet"])
def test_a_cell_counts_by_how_far_its_class_scores_are_apart(
    kind: fakes.Kind, reduction: str
) -> None:
    facts = fakes.spec(kind)
    step = fakes.scene(facts, dtype=torch.float64).step
    for i, term in enumerate(made(facts, reduction=reduction)(step).values()):
        wanted = 1.5 / 3 * oracle(step, i, norm=reduction == "norm")
        assert float(term.detach()) == pytest.approx(wanted, rel=1e-9)


def test_detached_it_teaches_the_neck_and_not_the_class_scores() -> None:
    for detach in (False, True):
        step = fakes.scene().step
        logits = step.student.dense.logits[0]
        (gradient,) = torch.autograd.grad(
            made(detach=detach)(step)["level0"], logits, allow_unused=True
        )
        assert (gradient is None) == detach
