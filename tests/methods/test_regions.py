from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes

from detdistill import boxes, losses
from detdistill.methods import UnsuitablePairError
from detdistill.methods.regions import Regions


def made(facts: fakes.Spec | None = None, **settings: object) -> Regions:
    method = Regions(**settings)  # type: ignore[arg-type]
    method.setup(facts or fakes.spec(), facts or fakes.spec())
    return method


REGIONS = ["inside", "main", "fine", "different"]


@pytest.mark.parametrize("region", REGIONS)
def test_the_first_stage_of_two_makes_the_regions(region: str) -> None:
    facts = fakes.spec("rcnn")
    step = fakes.scene(facts).step
    method = made(facts, region=region, levels="all")
    chosen = method.chosen(step)
    assert chosen.any()
    assert not chosen.all()
    assert all(term > 0 for term in method(step).values())


@pytest.mark.parametrize("region", REGIONS)
def test_a_level_is_the_mean_over_the_chosen_cells(region: str) -> None:
    step = fakes.scene().step
    method = made(region=region, levels="all")
    chosen = method.chosen(step)
    assert chosen.any()
    start = 0
    for term, student, teacher in zip(
        method(step).values(), step.student.neck, step.teacher.neck, strict=True
    ):
        cells = student.shape[-2] * student.shape[-1]
        mask = chosen[:, start : start + cells].flatten()
        rows = losses.squared_error(student, teacher).permute(0, 2, 3, 1).flatten(0, 2)[mask]
        wanted = 2 * rows.mean() if mask.any() else torch.zeros(())
        torch.testing.assert_close(term, wanted)
        start += cells


def test_the_fine_region_is_that_of_a_loop_over_objects() -> None:
    step = fakes.scene(seed=2).step
    priors, truth = step.student.dense.flat_priors(), step.truth
    for image, chosen in enumerate(made(region="fine").chosen(step)):
        overlaps = [boxes.iou(priors, box) for box in truth.boxes[image][truth.valid[image]]]
        wanted = torch.stack([o > 0.5 * o.max() for o in overlaps]).any(dim=0)
        assert torch.equal(chosen, wanted)


def test_a_cell_of_several_priors_is_chosen_if_one_is() -> None:
    facts = fakes.spec("retinanet")
    step = fakes.scene(facts).step
    assert all(term.isfinite() for term in made(facts)(step).values())


def test_images_suppress_each_other_only_if_asked_to() -> None:
    step = fakes.scene(same=False).step
    alone, jointly = (made(region="different", jointly=j).chosen(step) for j in (False, True))
    assert alone.sum() > jointly.sum() > 0


def test_points_overlap_nothing_and_are_refused_where_overlap_counts() -> None:
    facts = fakes.spec("fcos")
    with pytest.raises(UnsuitablePairError, match="regions asks which anchors overlap"):
        made(facts)
    assert made(facts, region="inside").chosen(fakes.scene(facts).step).any()


@pytest.mark.parametrize(("levels", "speaks"), [("positive", False), ("all", True)])
def test_levels_without_positives_speak_if_asked(levels: str, speaks: bool) -> None:
    step = fakes.scene().step
    missed = fakes.without_positives(step.targets, fakes.spec())
    terms = made(levels=levels)(dataclasses.replace(step, targets=missed))
    assert any(term > 0 for term in terms.values()) == speaks


def test_the_fine_region_has_no_priors_of_the_padding() -> None:
    step = fakes.scene(seed=2).step
    sizes = torch.tensor([[64, 32], [64, 64]])
    padded = dataclasses.replace(step, truth=dataclasses.replace(step.truth, sizes=sizes))
    inside = step.student.dense.inside(sizes)
    assert not inside.all()
    priors, truth = step.student.dense.flat_priors(), step.truth
    for image, chosen in enumerate(made(region="fine").chosen(padded)):
        overlaps = [
            boxes.iou(priors, box) * inside[image] for box in truth.boxes[image][truth.valid[image]]
        ]
        wanted = torch.stack([o > 0.5 * o.max() for o in overlaps]).any(dim=0)
        assert torch.equal(chosen, wanted)
