from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tests import fakes
from torch import Tensor

from detdistill import boxes, masks
from detdistill.methods import UnsuitablePairError, combine
from detdistill.methods.parts.proposals import shared
from detdistill.methods.tadf import TADF
from detdistill.structures import Step

LASTING = {"decay": "none"}


def made(kind: fakes.Kind = "gfl", **settings: object) -> TADF:
    method = TADF(**settings)  # type: ignore[arg-type]
    method.setup(fakes.spec(kind), fakes.spec(kind))
    return method


def terms(step: Step, kind: fakes.Kind = "gfl", **settings: object) -> dict[str, float]:
    return {n: float(term.detach()) for n, term in made(kind, **settings)(step).items()}


def worth(counts: str, student: float, teacher: float) -> float:
    """What a positive counts."""
    return {"better": float(teacher > student), "quality": teacher, "all": 1.0}[counts]


def divergence(student: Tensor, teacher: Tensor) -> float:
    """Of two lists of independent probabilities."""
    total = 0.0
    for p, q in zip(student.tolist(), teacher.tolist(), strict=True):
        total += q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    return total


@pytest.mark.parametrize("counts", ["better", "quality", "all"])
def test_scores_and_boxes_of_priors_are_those_of_a_loop(counts: str) -> None:
    step = fakes.scene(dtype=torch.float64).step
    said = [step.student.dense, step.teacher.dense]
    probabilities = [one.flat_logits().detach().sigmoid() for one in said]
    decoded = [one.decoded().detach() for one in said]
    cls, box, number = 0.0, 0.0, 0
    for image, labels in enumerate(step.targets.labels.tolist()):
        for prior, label in enumerate(labels):
            if label == 3:
                continue
            number += 1
            mine, theirs = (p[image, prior] for p in probabilities)
            right = worth(counts, float(mine[label]), float(theirs[label]))
            cls += right * divergence(mine, theirs)
            found = [one[image, prior] for one in decoded]
            truth = step.targets.boxes[image, prior]
            overlap = [float(boxes.iou(one, truth)) for one in found]
            box += worth(counts, overlap[0], overlap[1]) * float(1 - boxes.giou(*found))
    found_terms = terms(step, counts=counts, **LASTING)
    assert found_terms["cls"] == pytest.approx(cls / number, rel=1e-6)
    assert found_terms["box"] == pytest.approx(box / number, rel=1e-6)


def test_scores_and_boxes_of_regions_are_those_of_a_loop() -> None:
    step = fakes.scene(fakes.spec("rcnn"), dtype=torch.float64).step
    both = shared(step, "teacher", 512)
    said = [both.student, both.teacher]
    shares = [one.logits.detach().softmax(dim=-1) for one in said]
    decoded = [one.decoded().detach() for one in said]
    cls, box, number = 0.0, 0.0, 0
    for image, labels in enumerate(both.labels.tolist()):
        for region, label in enumerate(labels):
            if label == 3:
                continue
            number += 1
            mine, theirs = (p[image, region] for p in shares)
            if theirs[label] > mine[label]:
                cls += float((theirs * (theirs / mine).log()).sum())
            found = [one[image, region, label] for one in decoded]
            overlap = [boxes.iou(one, both.boxes[image, region]) for one in found]
            box += float(overlap[1] > overlap[0]) * float(1 - boxes.giou(*found))
    found_terms = terms(step, "rcnn", **LASTING)
    assert number >= 6
    assert found_terms["cls"] == pytest.approx(cls / number, rel=1e-6)
    assert found_terms["box"] == pytest.approx(box / number, rel=1e-6)


def test_the_neck_is_imitated_under_the_bells() -> None:
    step = fakes.scene(size=320).step
    bells = masks.pyramid(masks.gaussian_cells, step.truth, step.student.neck, (8, 16, 32))
    wanted = 0.0
    levels = zip(step.student.neck, step.teacher.neck, bells, strict=True)
    for student, teacher, bell in levels:
        error = (student - teacher).detach().square().mean(dim=1)
        wanted += 4 * float((error * bell).sum() / bell.sum()) / 2 / 3
    assert terms(step, **LASTING)["neck"] == pytest.approx(wanted, rel=1e-5)


def test_all_terms_fade_away_by_default() -> None:
    step = fakes.scene().step
    first, middle = (terms(dataclasses.replace(step, progress=p)) for p in (0.0, 0.5))
    assert middle == pytest.approx({name: term / 2 for name, term in first.items()})


def test_a_student_that_does_better_is_left_alone() -> None:
    step = fakes.scene().step
    surely = torch.where(step.targets.labels == 3, 0, step.targets.labels).unsqueeze(-1)
    sure = torch.full_like(step.student.dense.flat_logits(), -9.0).scatter(-1, surely, 9.0)
    parts = sure.split([len(level) for level in step.student.dense.priors], dim=1)
    logits = tuple(
        part.transpose(1, 2).reshape(level.shape)
        for part, level in zip(parts, step.student.dense.logits, strict=True)
    )
    said = dataclasses.replace(step.student.dense, logits=logits)
    right = dataclasses.replace(step, student=dataclasses.replace(step.student, predictions=said))
    assert terms(right)["cls"] == 0
    assert terms(right, counts="all")["cls"] > 0


def test_a_pair_of_two_families_is_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="tadf needs two detectors of one family"):
        combine.setup({"tadf": TADF()}, fakes.spec("rcnn"), fakes.spec("retinanet"))
