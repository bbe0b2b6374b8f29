"""What figures are made of, counted again cell by cell in plain loops."""

import numpy as np
import pytest
import torch
from tests import fakes

from detdistill import boxes
from detdistill.evaluate import conflict
from detdistill.evaluate.channels import summed_distances
from detdistill.evaluate.gradients import gradient_maps
from detdistill.evaluate.scores import cell_scores, score_errors, score_sums, wanted_scores
from detdistill.structures import DensePredictions

KINDS: tuple[fakes.Kind, ...] = ("gfl", "retinanet", "fcos", "rcnn")


def best_of_cells(flat: np.ndarray, said: DensePredictions) -> list[np.ndarray]:
    """(B, N, K) -> (B, K, H, W) per level: the largest number of the priors of each cell."""
    maps, start = [], 0
    for level, priors in zip(said.logits, said.priors, strict=True):
        batch, _, height, width = level.shape
        count = len(priors) // (height * width)
        found = np.zeros((batch, flat.shape[-1], height, width))
        for y in range(height):
            for x in range(width):
                first = start + (y * width + x) * count
                found[:, :, y, x] = flat[:, first : first + count].max(axis=1)
        maps.append(found)
        start += len(priors)
    return maps


@pytest.mark.parametrize("kind", KINDS)
def test_the_surest_prior_of_a_cell_speaks_for_a_class(kind: fakes.Kind) -> None:
    said = fakes.scene(fakes.spec(kind)).step.student.dense
    probability = 1 / (1 + np.exp(-said.flat_logits().detach().double().numpy()))
    for found, expected in zip(cell_scores(said), best_of_cells(probability, said), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_ask_for_the_class_and_of_distributions_for_the_overlap(kind: fakes.Kind) -> None:
    step = fakes.scene(fakes.spec(kind)).step
    said, targets = step.student.dense, step.targets
    wanted = np.zeros(said.flat_logits().shape)
    decoded = said.decoded().detach()
    for image, prior in np.argwhere(targets.labels.numpy() < wanted.shape[-1]):
        overlap = boxes.iou(decoded[image, prior], targets.boxes[image, prior])
        label = targets.labels[image, prior]
        wanted[image, prior, label] = overlap if kind == "gfl" else 1
    found = wanted_scores(said, targets)
    for level, expected in zip(found, best_of_cells(wanted, said), strict=True):
        np.testing.assert_allclose(level.numpy(), expected, atol=1e-6)


def test_sums_and_errors_run_over_the_classes() -> None:
    step = fakes.scene().step
    student, teacher = (cell_scores(output.dense) for output in (step.student, step.teacher))
    for level, found in zip(student, score_sums(student), strict=True):
        np.testing.assert_allclose(found.numpy(), level.numpy().sum(axis=1), rtol=1e-6)
    for a, b, found in zip(student, teacher, score_errors(student, teacher), strict=True):
        np.testing.assert_allclose(found.numpy(), np.abs(a.numpy() - b.numpy()).sum(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_conflicts_are_counted_where_labels_speak(kind: fakes.Kind) -> None:
    step = fakes.scene(fakes.spec(kind)).step
    said, targets = step.student.dense, step.targets
    apart = conflict.discrepancy(wanted_scores(said, targets), cell_scores(step.teacher.dense))
    counted = conflict.counted_cells(said, targets)
    thresholds = (0.1, 0.5, 0.9)
    by_hand = [
        sum(
            bool(cells[place]) and float(level[place]) > threshold
            for level, cells in zip(apart, counted, strict=True)
            for place in np.ndindex(*level.shape)
        )
        for threshold in thresholds
    ]
    assert conflict.conflicts(apart, counted, torch.tensor(thresholds)).tolist() == by_hand
    weights = targets.weights.expand(len(targets.labels), -1).unsqueeze(-1).numpy()
    for cells, expected in zip(counted, best_of_cells(weights, said), strict=True):
        assert (cells.numpy() == (expected[:, 0] > 0)).all()


def test_a_teacher_that_says_what_is_wanted_has_no_conflict() -> None:
    step = fakes.scene(fakes.spec("retinanet")).step
    wanted = wanted_scores(step.student.dense, step.targets)
    counted = conflict.counted_cells(step.student.dense, step.targets)
    apart = conflict.discrepancy(wanted, wanted)
    assert conflict.conflicts(apart, counted, torch.tensor([0.0])).tolist() == [0]


def test_positive_cells_have_a_prior_of_an_object() -> None:
    step = fakes.scene(fakes.spec("retinanet")).step
    positive = (step.targets.labels < 3).unsqueeze(-1).numpy()
    expected = best_of_cells(positive, step.student.dense)
    found = conflict.positive_cells(step.student.dense, step.targets)
    for cells, by_hand in zip(found, expected, strict=True):
        assert (cells.numpy() == by_hand[:, 0]).all()
    assert sum(int(cells.sum()) for cells in found) > 0


def test_a_gradient_is_measured_in_every_cell() -> None:
    torch.manual_seed(0)
    levels = tuple(torch.randn(2, 3, side, side, requires_grad=True) for side in (4, 2))
    weight = torch.randn(2, 3, 4, 4)
    fine, coarse = gradient_maps((levels[0].square() * weight).sum(), levels)
    for image, y, x in np.ndindex(2, 4, 4):
        by_hand = 2 * levels[0][image, :, y, x] * weight[image, :, y, x]
        assert fine[image, y, x].item() == pytest.approx(by_hand.norm().item(), rel=1e-5)
    assert not coarse.any(), "the loss does not depend on this level"


def test_a_loss_without_history_pulls_nowhere() -> None:
    levels = (torch.ones(1, 2, 3, 3, requires_grad=True),)
    assert not gradient_maps(torch.tensor(3.0), levels)[0].any()


def test_distances_are_summed_over_the_cells_of_each_channel() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 3, 4)
    cells = torch.rand(2, 3, 4) > 0.5
    total, count = summed_distances(student, teacher, cells)
    by_hand = np.zeros(5)
    for image, y, x in np.argwhere(cells.numpy()):
        by_hand += np.abs((student - teacher)[image, :, y, x].numpy())
    np.testing.assert_allclose(total.numpy(), by_hand, rtol=1e-5)
    assert count == len(np.argwhere(cells.numpy()))
