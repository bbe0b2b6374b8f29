from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes
from torch.nn import functional as F

from detdistill import losses, masks
from detdistill.methods import UnsuitablePairError
from detdistill.methods.defeat import DeFeat
from detdistill.methods.parts.proposals import Shared, shared
from detdistill.structures import Reads, Step


def made(kind: fakes.Kind = "gfl", **settings: object) -> DeFeat:
    method = DeFeat(**settings)  # type: ignore[arg-type]
    facts = fakes.spec(kind)
    method.setup(facts, facts)
    return method


def terms(step: Step, kind: fakes.Kind = "gfl", **settings: object) -> dict[str, float]:
    return {n: float(term.detach()) for n, term in made(kind, **settings)(step).items()}


# Neck


@pytest.mark.parametrize("mask", ["boxes", "fine", "random", "none"])
def test_each_part_of_the_neck_is_a_mean_of_its_own(mask: str) -> None:
    step = fakes.scene(size=320).step
    method = made(mask=mask)
    wanted = {"object": 0.0, "background": 0.0}
    levels = zip(method.cells(step), step.student.neck, step.teacher.neck, strict=True)
    for cells, student, teacher in levels:
        error = losses.squared_error(student, teacher).permute(0, 2, 3, 1)
        for name, weight, chosen in (("object", 4, cells == 1), ("background", 16, cells == 0)):
            if chosen.any():
                wanted[name] += weight * float(error[chosen].mean().detach()) / 2 / 3
    assert terms(step, mask=mask) == pytest.approx(wanted, rel=1e-5)


def test_a_bell_counts_less_to_the_border() -> None:
    step = fakes.scene(size=320).step
    bells, boxes = (made(mask=mask).cells(step) for mask in ("gaussian", "boxes"))
    assert all(((bell > 0) == (box > 0)).all() for bell, box in zip(bells, boxes, strict=True))
    assert any(((bell > 0.3) & (bell < 0.9)).any() for bell in bells)
    assert all(bell.max() <= 1 for bell in bells)


def test_random_cells_change_with_the_step_and_the_seed() -> None:
    step = fakes.scene(size=320).step
    first = made(mask="random").cells(step)[0]
    later = made(mask="random").cells(dataclasses.replace(step, index=1))[0]
    other = made(mask="random", seed=1).cells(step)[0]
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)


def test_points_have_no_fine_mask() -> None:
    with pytest.raises(UnsuitablePairError, match="defeat asks which anchors overlap"):
        made("fcos", mask="fine")


@pytest.mark.parametrize(("decay", "left"), [("none", 1.0), ("linear", 0.75), ("cosine", 0.853553)])
def test_all_weights_fall_by_the_end(decay: str, left: float) -> None:
    step = fakes.scene().step
    whole = terms(step)
    now = terms(dataclasses.replace(step, progress=0.25), decay=decay)
    assert now == pytest.approx({name: left * term for name, term in whole.items()}, rel=1e-5)
    assert decay == "none" or all(
        abs(term) < 1e-6 * whole[name]
        for name, term in terms(dataclasses.replace(step, progress=1.0), decay=decay).items()
    )


# Backbone


def with_backbones(step: Step, channels: int) -> Step:
    sizes = (32, 16, 8, 4)
    stages = [tuple(torch.randn(2, channels, size, size) for size in sizes) for _ in range(2)]
    return dataclasses.replace(
        step,
        student=dataclasses.replace(step.student, backbone=stages[0]),
        teacher=dataclasses.replace(step.teacher, backbone=stages[1]),
    )


def test_the_last_stages_of_the_backbone_are_taken_apart_by_all_objects() -> None:
    step = with_backbones(fakes.scene(size=128).step, 5)
    facts = dataclasses.replace(fakes.spec(), backbone_channels=(5, 5, 5, 5))
    method = DeFeat(backbone=True)
    method.setup(facts, facts)
    assert method.reads == Reads(backbone=True)
    found = {name: float(term.detach()) for name, term in method(step).items()}
    cells = masks.object_cells(step.truth, (16, 16), 8).float().unsqueeze(1)
    wanted = {"backbone_object": 0.0, "backbone_background": 0.0}
    assert step.student.backbone is not None
    assert step.teacher.backbone is not None
    pairs = zip(step.student.backbone[1:], step.teacher.backbone[1:], strict=True)
    for student, teacher in pairs:
        near = F.interpolate(cells, student.shape[-2:])[:, 0] > 0
        error = (student - teacher).square().permute(0, 2, 3, 1)
        wanted["backbone_object"] += 4 * float(error[near].mean()) / 6
        wanted["backbone_background"] += 16 * float(error[~near].mean()) / 6
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)


def test_stages_of_different_width_are_adapted_behind_a_relu() -> None:
    narrow, wide = (
        dataclasses.replace(fakes.spec(), backbone_channels=(width,) * 3) for width in (5, 7)
    )
    method = DeFeat(backbone=True)
    method.setup(wide, narrow)
    assert all(layer(torch.randn(1, 5, 4, 4)).shape[1] == 7 for layer in method.backbone_adapters)
    assert all((layer(torch.randn(1, 5, 4, 4)) >= 0).all() for layer in method.backbone_adapters)


def test_a_backbone_of_too_few_stages_is_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="defeat compares 3 stages of the backbones"):
        made(backbone=True)


# Proposals


def proposals_of(step: Step) -> Shared:
    return shared(step, "teacher", 512)


def test_each_kind_of_proposal_is_a_mean_of_its_own_at_its_own_temperature() -> None:
    step = fakes.scene(fakes.spec("rcnn")).step
    both = proposals_of(step)
    found = terms(step, "rcnn")
    for name, kind, weight, t in (
        ("positive", both.positive, 0.05, 3.0),
        ("negative", both.negative, 2.0, 1.0),
    ):
        assert kind.any()
        mine = (both.student.logits[kind] / t).log_softmax(dim=-1)
        theirs = (both.teacher.logits[kind] / t).softmax(dim=-1)
        divergence = (theirs * (theirs.log() - mine)).sum(dim=-1) * t**2
        assert found[name] == pytest.approx(weight * float(divergence.mean().detach()), rel=1e-4)


def test_padding_is_no_proposal() -> None:
    step = fakes.scene(fakes.spec("rcnn")).step
    both = proposals_of(step)
    valid = both.student.proposals.valid
    assert not valid.all()
    assert torch.equal(both.positive | both.negative, valid)


def test_all_proposals_can_be_treated_alike() -> None:
    step = fakes.scene(fakes.spec("rcnn")).step
    both = proposals_of(step)
    alike = {"positive_weight": 1.0, "negative_weight": 1.0, "positive_temperature": 1.0}
    found = terms(step, "rcnn", apart=False, **alike)
    each = losses.kl_divergence(both.student.logits, both.teacher.logits)
    wanted = float(each[both.student.proposals.valid].mean().detach())
    assert found["positive"] + found["negative"] == pytest.approx(wanted, rel=1e-5)


def test_negative_proposals_can_be_as_few_as_positive_ones() -> None:
    step = fakes.scene(fakes.spec("rcnn"), objects=1).step
    whole, drawn = (terms(step, "rcnn", negatives=n)["negative"] for n in ("all", "sampled"))
    again = terms(step, "rcnn", negatives="sampled", seed=1)["negative"]
    assert len({whole, drawn, again}) == 3


def test_proposals_may_be_the_students() -> None:
    step = fakes.scene(fakes.spec("rcnn")).step
    theirs, mine = (terms(step, "rcnn", proposals=whose) for whose in ("teacher", "student"))
    assert theirs["negative"] != mine["negative"]
    assert step.targets.regions is not None
    both = shared(step, "student", 512)
    assert both.student is step.targets.regions.scores
    assert torch.equal(both.labels, step.targets.regions.labels)


def test_only_what_is_used_is_asked_for() -> None:
    assert made().reads == Reads()
    assert made("rcnn").reads == Reads(predictions=True, head=True)
    assert made("rcnn", proposals="student").reads == Reads(head=True)
    assert made("rcnn", proposals="none").reads == Reads()


def test_one_stage_detectors_have_no_proposals() -> None:
    assert set(terms(fakes.scene().step)) == {"object", "background"}
    rcnn = fakes.scene(fakes.spec("rcnn")).step
    assert set(terms(rcnn, "rcnn", proposals="none")) == {"object", "background"}
