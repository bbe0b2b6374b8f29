"""CrossKD in two-stage and query detectors."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes
from tests.fakes import FakeRegionHead, QueryPredictions, RegionScores
from torch import Tensor
from torch.nn import functional as F

from detdistill import boxes
from detdistill.methods import UnsuitablePairError
from detdistill.methods.crosskd import CrossKD


def made(kind: fakes.Kind, **settings: object) -> CrossKD:
    method = CrossKD(**settings)  # type: ignore[arg-type]
    method.setup(fakes.spec(kind), fakes.spec(kind))
    return method


def gradients(loss: Tensor, *modules: torch.nn.Module) -> list[Tensor | None]:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return list(torch.autograd.grad(loss, parameters, allow_unused=True))


def test_the_teachers_second_stage_looks_at_the_students_regions() -> None:
    scene = fakes.scene(fakes.spec("rcnn"))
    step, head = scene.step, scene.teacher_head
    assert isinstance(head, FakeRegionHead)
    sampled = step.targets.regions
    assert sampled is not None
    said, wanted = made("rcnn").compared(step)
    assert isinstance(said, RegionScores)
    assert isinstance(wanted, RegionScores)
    assert torch.equal(said.logits, head.resume(sampled.trace).logits)
    own = head.classify(step.teacher.neck, sampled.trace.proposals)
    assert torch.equal(wanted.logits, own.logits)
    assert not wanted.logits.requires_grad


def test_regions_cost_what_a_loop_over_them_costs() -> None:
    step = fakes.scene(fakes.spec("rcnn")).step
    said, wanted = made("rcnn").compared(step)
    assert isinstance(said, RegionScores)
    assert isinstance(wanted, RegionScores)
    cls = box = 0.0
    rows = wanted.proposals.valid.nonzero().tolist()
    for image, i in rows:
        log_p, q = said.logits[image, i].log_softmax(-1), wanted.logits[image, i].softmax(-1)
        cls += float(F.kl_div(log_p, q, reduction="sum").detach())
        surest = int(q[:-1].argmax())
        pair = (scores.decoded()[image, i, surest].detach() for scores in (said, wanted))
        box += float(q[surest] * (1 - boxes.giou(*pair)))
    terms = made("rcnn", box_weight=2.0)(step)
    torch.testing.assert_close(float(terms["cls"].detach()), cls / len(rows), rtol=1e-4, atol=0)
    torch.testing.assert_close(float(terms["box"].detach()), 2 * box / len(rows), rtol=1e-4, atol=0)


def test_the_number_of_regions_is_a_mean_over_ranks() -> None:
    facts = fakes.spec("rcnn")
    alone = made("rcnn")(fakes.scene(facts).step)
    together = made("rcnn")(fakes.scene(facts, world_mean=lambda value: value * 2).step)
    for name, term in alone.items():
        torch.testing.assert_close(together[name], term / 2)


def test_the_teachers_decoder_looks_at_the_students_memory() -> None:
    scene = fakes.scene(fakes.spec("query"))
    said, wanted = made("query").compared(scene.step)
    assert isinstance(said, QueryPredictions)
    assert wanted is scene.step.teacher.predictions
    crossed = scene.teacher_head.resume(scene.step.student.encoder)  # type: ignore[arg-type, call-arg]
    assert isinstance(crossed, QueryPredictions)
    torch.testing.assert_close(said.logits, crossed.logits)


def test_queries_cost_what_a_loop_over_stages_and_queries_costs() -> None:
    step = fakes.scene(fakes.spec("query")).step
    said, wanted = made("query").compared(step)
    assert isinstance(said, QueryPredictions)
    assert isinstance(wanted, QueryPredictions)
    cls = box = 0.0
    for stage, logits in enumerate(wanted.logits):
        for image in range(2):
            for query, z in enumerate(logits[image]):
                p, q = said.logits[stage][image, query].detach().sigmoid(), z.sigmoid()
                cross = F.binary_cross_entropy(p, q, reduction="none")
                cls += float(((p - q).abs() * cross).sum())
                pair = (boxed.boxes[stage][image, query].detach() for boxed in (said, wanted))
                box += float(q.max() * (1 - boxes.giou(*pair)))
    terms, objects = made("query")(step), float(step.targets.positives)
    torch.testing.assert_close(float(terms["cls"].detach()), cls / objects, rtol=1e-4, atol=0)
    torch.testing.assert_close(float(terms["box"].detach()), box / objects, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["rcnn", "query"])
def test_the_students_last_layers_learn_nothing(kind: fakes.Kind) -> None:
    scene = fakes.scene(fakes.spec(kind))
    head = scene.student_head
    last = (head.cls, head.reg) if isinstance(head, FakeRegionHead) else (head.cls, head.box)  # type: ignore[union-attr]
    loss = torch.stack(list(made(kind)(scene.step).values())).sum()
    assert gradients(loss, *last) == [None] * len(gradients(loss, *last))


@pytest.mark.parametrize("kind", ["rcnn", "query"])
@pytest.mark.parametrize("setting", [{"cut": 0}, {"strategy": "b"}], ids=["cut", "strategy"])
def test_there_is_one_place_and_one_way_to_cross(
    kind: fakes.Kind, setting: dict[str, object]
) -> None:
    with pytest.raises(UnsuitablePairError, match="leave out cut and strategy"):
        made(kind, **setting)


def test_only_what_cannot_be_shown_to_the_teacher_is_refused() -> None:
    region, query = fakes.spec("rcnn"), fakes.spec("query")
    with pytest.raises(UnsuitablePairError, match="pools 7 cells per side and the student 2"):
        CrossKD().setup(dataclasses.replace(region, pool_size=7), region)
    with pytest.raises(UnsuitablePairError, match="two detectors of one family"):
        CrossKD().setup(query, region)
    CrossKD().setup(dataclasses.replace(query, queries=9, stages=4), query)
    CrossKD().setup(dataclasses.replace(region, strides=(4, 8, 16)), region)
