"""FGD, MGD, FRS and FGFI, where recorded numbers do not reach."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tests import fakes
from tests.fakes import Step

from detdistill import losses, masks
from detdistill.methods import UnsuitablePairError, combine
from detdistill.methods.fgd import FGD
from detdistill.methods.fgfi import FGFI
from detdistill.methods.frs import FRS
from detdistill.methods.mgd import MGD
from detdistill.structures import Truth


def step_of_large_images() -> Step:
    return fakes.scene(size=320).step


# FGD


def looped_shares(truth: Truth, shape: tuple[int, int], sizes: torch.Tensor) -> torch.Tensor:
    result = torch.zeros(len(sizes), *shape)
    for image, (height, width) in enumerate(sizes.tolist()):
        for box in truth.boxes[image][truth.valid[image]]:
            x1, y1, x2, y2 = (box / torch.tensor([width, height] * 2)).tolist()
            x1, x2 = math.floor(x1 * shape[1]), math.ceil(x2 * shape[1])
            y1, y2 = math.floor(y1 * shape[0]), math.ceil(y2 * shape[0])
            for y in range(max(y1, 0), min(y2 + 1, shape[0])):
                for x in range(max(x1, 0), min(x2 + 1, shape[1])):
                    share = 1 / ((y2 + 1 - y1) * (x2 + 1 - x1))
                    result[image, y, x] = max(result[image, y, x], share)
    return result


@pytest.mark.parametrize("size", [8, 60, 64])
def test_the_objects_cells_are_those_of_a_loop(size: int) -> None:
    truth = fakes.truth(objects=4)
    sizes = torch.tensor([[size, 64], [64, 48]])
    shares = masks.object_shares(truth, (8, 6), sizes)
    torch.testing.assert_close(shares, looped_shares(truth, (8, 6), sizes))


def test_without_background_no_cell_is_background() -> None:
    shares = masks.background_shares(torch.ones(1, 2, 2))
    assert (shares == 0).all()


def test_padding_moves_no_object_if_asked_not_to() -> None:
    step = step_of_large_images()
    cropped = dataclasses.replace(step.truth, sizes=torch.tensor([[160, 320], [320, 320]]))
    padded = dataclasses.replace(step, truth=cropped)

    def shares(scale: str, of: Step) -> torch.Tensor:
        method = FGD(scale=scale)  # type: ignore[arg-type]
        method.setup(fakes.spec(), fakes.spec())
        return method.shares(0, of)[0]

    assert torch.equal(shares("padded", padded), shares("padded", step))
    assert not torch.equal(shares("image", padded), shares("image", step))
    assert torch.equal(shares("image", step), shares("padded", step))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("gfl", [1e-3, 5e-4, 5e-4, 5e-6]),
        ("fcos", [1.6e-3, 8e-4, 8e-4, 8e-6]),
        ("rcnn", [5e-5, 2.5e-5, 5e-5, 5e-7]),
    ],
)
def test_fgd_has_the_released_weights_of_each_head(kind: fakes.Kind, wanted: list[float]) -> None:
    method = FGD()
    method.setup(fakes.spec(kind), fakes.spec(kind))
    assert method.weights == wanted
    assert method.sharpness == (0.8 if kind == "fcos" else 0.5)
    partly = FGD(background_weight=2.0)
    partly.setup(fakes.spec(kind), fakes.spec(kind))
    assert partly.weights == [wanted[0], 2.0, *wanted[2:]]


# MGD


@pytest.mark.parametrize(("kind", "wanted"), [("gfl", (2e-5, 0.65)), ("rcnn", (5e-7, 0.45))])
def test_mgd_has_the_released_weights_of_each_family(
    kind: fakes.Kind, wanted: tuple[float, float]
) -> None:
    method = MGD()
    method.setup(fakes.spec(kind), fakes.spec(kind))
    assert (method.scale, method.blanked) == wanted


def test_cells_are_blanked_by_step_level_and_seed_alone() -> None:
    step = step_of_large_images()
    method, other = MGD(), MGD(seed=1)
    for one in (method, other):
        one.setup(fakes.spec(), fakes.spec())
    kept = method.kept(0, step)
    assert torch.equal(kept, method.kept(0, step))
    assert not torch.equal(kept, other.kept(0, step))
    assert not torch.equal(kept, method.kept(0, dataclasses.replace(step, index=1)))
    assert not torch.equal(kept[0], kept[1])
    assert float(kept.mean()) == pytest.approx(0.35, abs=0.03)


def test_chance_is_uniform_and_its_neighbours_are_unrelated() -> None:
    values = torch.cat([masks.uniform((4096,), torch.device("cpu"), 7, step) for step in range(8)])
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.histc(values, 16, 0, 1)
    expected = len(values) / 16
    assert float(((counts - expected) ** 2 / expected).sum()) < 38  # 0.1 % of chi squared
    for apart in (1, 2, 64, 4096):
        pair = torch.stack([values[:-apart], values[apart:]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.03


@pytest.mark.parametrize("method", [FGD(), MGD()])
def test_the_pooled_level_of_two_stage_detectors_is_left_out(method: FGD | MGD) -> None:
    facts = fakes.spec("rcnn")
    combine.setup({"method": method}, facts, facts)
    scene = fakes.scene(facts)
    torch.stack(list(method(scene.step).values())).sum().backward()
    assert [level.grad is not None for level in scene.student_neck] == [
        *(True for _ in facts.strides[:-1]),
        False,
    ]


# FRS


def test_entropy_is_a_constant() -> None:
    scenes = [fakes.scene(), fakes.scene()]
    grads, terms = [], []
    for scene, entropy in zip(scenes, (False, True), strict=True):
        method = FRS(entropy=entropy, warm_up=0)
        method.setup(fakes.spec(), fakes.spec())
        terms.append(method(scene.step)["cls"])
        terms[-1].backward()
        grads.append(scene.student_neck[0].grad)
    assert terms[0] < terms[1]
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("gfl", (0.1, 0.05)),
        ("retinanet", (0.005, 0.02)),
        ("fcos", (0.01, 0.05)),
        ("rcnn", (0.002, 0.1)),
    ],
)
def test_each_head_has_its_released_weights(kind: fakes.Kind, wanted: tuple[float, float]) -> None:
    method = FRS()
    combine.setup({"frs": method}, fakes.spec(kind), fakes.spec(kind))
    assert tuple(method.weights) == wanted


def test_a_teacher_that_sees_nothing_divides_by_no_zero() -> None:
    step = fakes.scene().step
    blind = tuple(level - 200 for level in step.teacher.dense.logits)
    said = dataclasses.replace(step.teacher.dense, logits=blind)
    step = dataclasses.replace(step, teacher=dataclasses.replace(step.teacher, predictions=said))
    method = FRS()
    method.setup(fakes.spec(), fakes.spec())
    assert all(term.isfinite() for term in method(step).values())


def test_scores_that_round_to_one_are_compared_as_released() -> None:
    method = FRS(entropy=True)
    method.setup(fakes.spec(), fakes.spec())
    logits = torch.tensor([30.0, 1.0], requires_grad=True)
    lost = method._divergence(logits, torch.tensor([1.0, 30.0]))
    probability = 1 / (1 + math.exp(-1))
    wanted = [100 * (1 - probability), -math.log(probability)]
    torch.testing.assert_close(lost, torch.tensor(wanted))
    lost.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([0.0, probability - 1]))


def test_the_mean_over_a_blind_teachers_cells_stays_a_mean() -> None:
    step = fakes.scene().step
    dim = tuple(torch.full_like(level, -55.0) for level in step.teacher.dense.logits)
    said = dataclasses.replace(step.teacher.dense, logits=dim)
    step = dataclasses.replace(step, teacher=dataclasses.replace(step.teacher, predictions=said))
    method = FRS(warm_up=0)
    method.setup(fakes.spec(), fakes.spec())
    apart = zip(step.student.neck, step.teacher.neck, strict=True)
    wanted = sum(losses.squared_error(*pair).sum(dim=1).mean() for pair in apart)
    torch.testing.assert_close(method(step)["neck"], 0.1 * wanted)


# FGFI


def test_an_object_counts_on_the_level_of_its_size_alone() -> None:
    boxes = torch.tensor([[0, 0, 50.0, 50], [0, 0, 120, 120], [0, 0, 230, 230], [0, 0, 900, 900]])
    assert masks.object_level(boxes, 3).tolist() == [0, 1, 2, 2]
    assert masks.object_level(torch.zeros(1, 4), 3).tolist() == [0]


def test_the_pyramids_loss_is_that_of_a_loop() -> None:
    step = step_of_large_images()
    method = FGFI()
    method.setup(fakes.spec(), fakes.spec())
    cells = method.cells(step)
    assert all(level.any() for level in cells)
    wanted = 0.0
    for mask, student, teacher in zip(cells, step.student.neck, step.teacher.neck, strict=True):
        error = losses.squared_error(student, teacher).permute(0, 2, 3, 1)[mask]
        wanted += float(error.mean().detach()) / 2
    assert float(method(step)["near"].detach()) == pytest.approx(3 * wanted / 3, rel=1e-5)


def test_it_can_start_late() -> None:
    step = fakes.scene().step
    method = FGFI(start=2)
    method.setup(fakes.spec(), fakes.spec())
    assert method(dataclasses.replace(step, index=1))["near"] == 0
    assert method(dataclasses.replace(step, index=2))["near"] > 0


def test_points_are_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="fgfi asks which anchors overlap"):
        FGFI().setup(fakes.spec("fcos"), fakes.spec("fcos"))
