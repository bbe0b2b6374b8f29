from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes
from torchvision.ops import nms, roi_align

from detdistill import boxes
from detdistill.methods.mimic import Mimic
from detdistill.structures import DetectorOutput, QueryPredictions, Reads


def made(kind: fakes.Kind = "gfl", **settings: object) -> Mimic:
    method = Mimic(**settings)  # type: ignore[arg-type]
    method.setup(fakes.spec(kind), fakes.spec(kind))
    return method


def level_of(box: torch.Tensor, levels: int) -> int:
    """FPN's: 224 pixels belong on stride 16, the second of ours."""
    size = float(boxes.area(box).sqrt())
    return min(max(int(torch.tensor(size / 224 + 1e-8).log2().floor()) + 1, 0), levels - 1)


@pytest.mark.parametrize("adapter", ["none", "conv1"])
@pytest.mark.parametrize("regions", ["teacher", "student", "objects"])
@pytest.mark.parametrize("kind", ["gfl", "fcos", "rcnn"])
def test_the_term_is_that_of_a_loop_over_regions(
    kind: fakes.Kind, regions: str, adapter: str
) -> None:
    step = fakes.scene(fakes.spec(kind), size=320).step
    method = made(kind, regions=regions, count=5, size=3, adapter=adapter)
    found, valid = method.chosen(step)
    assert 0 < int(valid.sum()) <= 10
    errors = []
    for image in range(2):
        for box in found[image][valid[image]]:
            level = level_of(box, 3)
            mine, theirs = (
                roi_align(
                    output.neck[level][image : image + 1],
                    [box.unsqueeze(0)],
                    3,
                    1 / (8 * 2**level),
                    aligned=True,
                )
                for output in (step.student, step.teacher)
            )
            errors.append((method.adapt(mine) - theirs).detach().square().mean())
    wanted = 3 * float(torch.stack(errors).mean()) / 2
    assert float(method(step)["region"].detach()) == pytest.approx(wanted, rel=1e-4)


def test_the_surest_boxes_are_those_of_ordinary_suppression() -> None:
    step = fakes.scene(fakes.spec("retinanet"), size=128).step
    found, valid = made("retinanet", count=6, overlap=0.3).chosen(step)
    said = step.teacher.dense
    scores, corners = (
        said.flat_logits().amax(dim=-1),
        boxes.clipped(said.decoded(), step.truth.sizes),
    )
    for image in range(2):
        best = scores[image].topk(48).indices
        best = best[boxes.area(corners[image, best]) > 0]
        kept = best[nms(corners[image, best], scores[image, best], 0.3)][:6]
        torch.testing.assert_close(found[image][valid[image]], corners[image, kept])


def test_regions_end_with_the_image_and_those_outside_do_not_count() -> None:
    step = fakes.scene(fakes.spec("rcnn")).step
    proposals = step.teacher.regions.proposals
    corners = proposals.boxes.clone()
    corners[:, 0] = torch.tensor([-50.0, -50, 10, 10])
    corners[:, 1] = torch.tensor([90.0, 90, 95, 95])
    moved = dataclasses.replace(
        step.teacher.regions, proposals=dataclasses.replace(proposals, boxes=corners)
    )
    step = dataclasses.replace(step, teacher=dataclasses.replace(step.teacher, predictions=moved))
    found, valid = made("rcnn").chosen(step)
    assert found[:, 0].tolist() == [[0, 0, 10, 10]] * 2
    assert not valid[:, 1].any()
    assert not valid[:, -1].any()


def with_queries(output: DetectorOutput) -> DetectorOutput:
    """The same, as if a query detector had said it."""
    said = QueryPredictions(logits=(output.dense.flat_logits(),), boxes=(output.dense.decoded(),))
    return dataclasses.replace(output, predictions=said)


def test_queries_give_regions_as_priors_do() -> None:
    step = fakes.scene().step
    asked = dataclasses.replace(step, teacher=with_queries(step.teacher))
    assert torch.equal(made().chosen(asked)[0], made().chosen(step)[0])


def test_teachers_predictions_are_asked_for_only_if_they_are_used() -> None:
    assert made().reads == Reads(predictions=True)
    assert made(regions="student").reads == Reads()


def test_without_regions_the_term_is_zero() -> None:
    scene = fakes.scene(objects=0)
    term = made(regions="objects")(scene.step)["region"]
    assert term == 0
    term.backward()
    assert all(level.grad is None or not level.grad.any() for level in scene.student_neck)
