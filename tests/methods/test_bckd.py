from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from tests import fakes
from tests.fakes import Step

from detdistill import boxes
from detdistill.methods.bckd import BCKD


def made(**settings: object) -> BCKD:
    method = BCKD(**settings)  # type: ignore[arg-type]
    method.setup(fakes.spec(), fakes.spec())
    return method


def without_positives_on(step: Step, level: int) -> Step:
    priors = step.student.dense.priors
    counts = [len(one) for one in priors]
    start = sum(counts[:level])
    labels = step.targets.labels.clone()
    labels[:, start : start + counts[level]] = 3
    return dataclasses.replace(step, targets=dataclasses.replace(step.targets, labels=labels))


def test_a_level_without_positives_is_silent_unless_asked_to_speak() -> None:
    step = without_positives_on(fakes.scene().step, 1)
    assert not made().weights(step)[:, 64:80].any()
    assert made().weights(step)[:, :64].any()
    assert torch.equal(made(levels="all").weights(step), step.targets.weights)


def test_a_level_speaks_if_another_rank_has_a_positive_there() -> None:
    step = without_positives_on(fakes.scene().step, 1)
    together = dataclasses.replace(step, world_mean=lambda count: count + 0.5)
    assert torch.equal(made().weights(together), step.targets.weights)


def test_a_class_term_of_a_loop_over_locations() -> None:
    step = fakes.scene().step
    logits, targets = step.student.dense.flat_logits().detach().double(), step.targets
    wanted = 0.0
    for z, t, weight in zip(
        logits.flatten(0, 1),
        step.teacher.dense.flat_logits().double().flatten(0, 1),
        targets.weights.flatten(),
        strict=True,
    ):
        p, q = z.sigmoid(), t.sigmoid()
        cross = -(q * p.log() + (1 - q) * (1 - p).log())
        wanted += float(weight * ((p - q).abs() * cross).sum())
    term = made()(step)["cls"]
    torch.testing.assert_close(
        float(term.detach()), wanted / float(targets.positives), rtol=1e-5, atol=0
    )


def test_where_the_class_scores_agree_boxes_do_not_matter() -> None:
    step = fakes.scene().step
    said = dataclasses.replace(step.teacher.dense, logits=step.student.dense.logits)
    agreed = dataclasses.replace(step.teacher, predictions=said)
    assert made()(dataclasses.replace(step, teacher=agreed))["box"] == 0


@pytest.mark.parametrize(("overlap", "distance"), [("giou", boxes.giou), ("iou", boxes.iou)])
def test_the_box_term_is_that_of_a_loop_over_locations(
    overlap: str, distance: Callable[..., torch.Tensor]
) -> None:
    step = fakes.scene(dtype=torch.float64).step
    said, wanted = step.student.dense, step.teacher.dense
    total = 0.0
    for image in range(2):
        for i, weight in enumerate(step.targets.weights[image]):
            pair = (output.flat_logits()[image, i].detach() for output in (said, wanted))
            p, q = (logits.sigmoid() for logits in pair)
            apart = (p - q).abs().max()
            box = 1 - distance(said.decoded()[image, i].detach(), wanted.decoded()[image, i])
            total += float(weight * apart * box)
    term = made(overlap=overlap)(step)["box"]
    loop = 4 * total / float(step.targets.positives)
    torch.testing.assert_close(float(term.detach()), loop, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("weight", "silent"), [("cls_weight", "cls"), ("box_weight", "box")])
def test_each_term_can_be_had_alone(weight: str, silent: str) -> None:
    step = fakes.scene().step
    alone, both = made(**{weight: 0.0})(step), made()(step)
    (other,) = set(both) - {silent}
    assert alone[silent] == 0
    assert torch.equal(alone[other], both[other])


@pytest.mark.parametrize("kind", ["gfl", "atss", "retinanet", "fcos"])
@pytest.mark.parametrize("levels", ["positive", "all"])
def test_without_any_positive_only_the_printed_formula_speaks(
    kind: fakes.Kind, levels: str
) -> None:
    facts = fakes.spec(kind)
    method = BCKD(levels=levels)  # type: ignore[arg-type]
    method.setup(facts, facts)
    terms = method(fakes.scene(facts, objects=0).step)
    assert all((term > 0) == (levels == "all") for term in terms.values())


def test_the_overlap_of_tiny_boxes_is_that_in_strides() -> None:
    step = fakes.scene().step
    step.targets.weights[:] = 1
    stride = step.student.dense.flat_strides().unsqueeze(-1)
    small = [torch.tensor([0.0, 0.0, side, side]) * stride for side in (1e-3, 2e-3)]

    class Coder:
        numbers = 4

        def __init__(self, corners: torch.Tensor) -> None:
            self.corners = corners

        def decode(self, raw: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return self.corners.expand(len(raw), -1, -1)

    said = [
        dataclasses.replace(
            output, predictions=dataclasses.replace(output.dense, coder=Coder(corners))
        )
        for output, corners in zip((step.student, step.teacher), small, strict=True)
    ]
    method = made(levels="all")
    step = dataclasses.replace(step, student=said[0], teacher=said[1])
    apart = method.disagreement(step).sum() / step.targets.positives
    covered, whole = 1e-6, 4e-6
    wanted = 4 * (1 - covered / whole) * apart
    torch.testing.assert_close(method(step)["box"], wanted)
