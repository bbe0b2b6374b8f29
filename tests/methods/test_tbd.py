from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes

from detdistill import boxes, masks
from detdistill.methods import UnsuitablePairError
from detdistill.methods.tbd import TBD
from detdistill.structures import Step


def made(facts: fakes.Spec | None = None, **settings: object) -> TBD:
    method = TBD(**settings)  # type: ignore[arg-type]
    method.setup(facts or fakes.spec(), facts or fakes.spec())
    return method


def test_harmony_is_high_where_both_are_and_the_gap_counts_against_it() -> None:
    score, overlap = torch.tensor([0.9, 0.9, 0.0, 0.5]), torch.tensor([0.9, 0.1, 0.7, 0.5])
    means = {
        "harmonic": [0.9, 0.18, 0.0, 0.5],
        "geometric": [0.9, 0.3, 0.0, 0.5],
        "gap": [0.9, 0.06, 0.0, 0.5],
        "none": [1.0] * 4,
    }
    for kind, wanted in means.items():
        found = masks.harmony(masks.ObjectQuality(score, overlap), kind)  # type: ignore[arg-type]
        torch.testing.assert_close(found, torch.tensor(wanted))


def test_the_predictions_of_positives_are_those_of_a_loop() -> None:
    step = fakes.scene(dtype=torch.float64).step
    said, wanted, targets = step.student.dense, step.teacher.dense, step.targets
    cls = box = total = 0.0
    for image, label_row in enumerate(targets.labels):
        for i, label in enumerate(label_row.tolist()):
            if label == 3:
                continue
            target = wanted.flat_logits()[image, i].sigmoid()
            theirs, mine = wanted.decoded()[image, i], said.decoded()[image, i].detach()
            u = boxes.iou(theirs, targets.boxes[image, i].double())
            count = float(2 * target[label] * u / (target[label] + u + 1e-6))
            p = said.flat_logits()[image, i].detach().sigmoid()
            cross = -(target * p.log() + (1 - target) * (1 - p).log()).sum()
            cls += count * float(cross)
            box += count * float(1 - boxes.giou(mine, theirs))
            total += count
    terms = made(box_weight=2.0)(step)
    assert total > 1
    torch.testing.assert_close(float(terms["cls"].detach()), cls / total, rtol=1e-5, atol=0)
    torch.testing.assert_close(float(terms["box"].detach()), 2 * box / total, rtol=1e-5, atol=0)


def test_each_part_can_be_had_alone() -> None:
    step = fakes.scene().step
    both = made()(step)
    harmony, features = made(feature_weight=0.0)(step), made(harmony_weight=0.0)(step)
    for name, term in both.items():
        apart = (harmony, features) if name in ("cls", "box") else (features, harmony)
        assert torch.equal(apart[0][name], term)
        assert apart[1][name] == 0


def test_masks_are_the_best_of_the_anchors_of_a_cell() -> None:
    facts = fakes.spec("retinanet")
    step = fakes.scene(facts).step
    method = made(facts)
    quality = method.quality(step.teacher.dense, step)
    naming, finding = method.named_and_found(quality, step)
    best = step.teacher.dense.flat_logits().sigmoid().unflatten(1, (-1, 3)).amax(dim=(2, 3))
    torch.testing.assert_close(torch.cat([m.flatten(1) for m in naming], dim=1), best)
    found = quality.overlap.unflatten(1, (-1, 3)).amax(dim=-1)
    assert found.max() > 0
    torch.testing.assert_close(torch.cat([m.flatten(1) for m in finding], dim=1), found)


def test_assignments_to_some_rows_give_what_assignments_to_all_give() -> None:
    step = fakes.scene().step
    rows = torch.arange(0, step.targets.labels.shape[1], 3).flip(0).expand(2, -1)
    some = dataclasses.replace(step, targets=dataclasses.replace(step.targets, rows=rows))
    method = made()
    torch.testing.assert_close(method(some), method(step))


def test_the_task_in_which_the_student_lags_counts_more() -> None:
    step = fakes.scene().step
    method = made()
    naming, finding = _shares(method, step)
    torch.testing.assert_close(naming + finding, torch.ones(()))
    same_boxes = dataclasses.replace(step.student.dense, boxes=step.teacher.dense.boxes)
    knowing = dataclasses.replace(
        step, student=dataclasses.replace(step.student, predictions=same_boxes)
    )
    assert _shares(method, knowing)[0] > 0.99
    assert [float(share) for share in _shares(made(balance="equal"), step)] == [0.5, 0.5]


def _shares(method: TBD, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
    teacher, student = (method.quality(o.dense, step) for o in (step.teacher, step.student))
    return method.task_shares(teacher, student, step)


def test_without_positives_only_where_the_teacher_names_objects_counts() -> None:
    step = fakes.scene(objects=0).step
    terms = made()(step)
    assert terms["cls"] == terms["box"] == 0
    for i, mask in enumerate(
        made().named_and_found(made().quality(step.teacher.dense, step), step)[0]
    ):
        error = (step.student.neck[i] - step.teacher.neck[i]).square().mean(dim=1)
        wanted = (mask * error).sum() / mask.sum() / 2 * 0.5 / 3
        torch.testing.assert_close(terms[f"level{i}"], wanted)


def test_other_priors_are_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="tbd needs equally many priors"):
        TBD().setup(fakes.spec("retinanet"), fakes.spec("gfl"))
