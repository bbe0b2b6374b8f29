from __future__ import annotations

import numpy as np
import pytest
import torch
from tests import fakes

from detdistill.errors import UserError
from detdistill.methods.skd import SKD
from detdistill.similarity import structural_similarity


def oracle(a: np.ndarray, b: np.ndarray, extent: float, window: int = 11) -> np.ndarray:
    """Structural similarity of two maps (H, W), cell by cell and neighbour by neighbour."""
    height, width = a.shape
    found = np.zeros_like(a)
    for row, column in np.ndindex(height, width):
        weights, pairs = [], []
        for y in range(max(row - window // 2, 0), min(row + window // 2 + 1, height)):
            for x in range(max(column - window // 2, 0), min(column + window // 2 + 1, width)):
                weights.append(np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 1.5**2)))
                pairs.append((a[y, x], b[y, x]))
        share, values = np.array(weights) / np.sum(weights), np.array(pairs)
        mean = share @ values
        apart = values - mean
        variance, shared = share @ apart**2, share @ (apart[:, 0] * apart[:, 1])
        c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
        found[row, column] = (
            (2 * mean.prod() + c1)
            * (2 * shared + c2)
            / (((mean**2).sum() + c1) * (variance.sum() + c2))
        )
    return found


@pytest.mark.parametrize("window", [11, 5])
def test_it_is_half_of_what_the_similarity_of_each_neighbourhood_lacks(window: int) -> None:
    facts = fakes.spec(channels=2, strides=(8, 16, 64))
    step = fakes.scene(facts, dtype=torch.float64).step
    method = SKD(window=window)
    method.setup(facts, facts)
    for term, student, teacher in zip(
        method(step).values(), step.student.neck, step.teacher.neck, strict=True
    ):
        ours, theirs = student.detach().numpy(), teacher.detach().numpy()
        alike = [
            oracle(ours[image, channel], theirs[image, channel], np.ptp(theirs[image]), window)
            for image, channel in np.ndindex(2, 2)
        ]
        assert float(term.detach()) == pytest.approx(4 * (1 - np.mean(alike)) / 2, rel=1e-8)


def test_gradients_are_those_of_the_values() -> None:
    a, b = torch.randn(2, 2, 3, 7, 5, dtype=torch.float64)
    extent = torch.rand(2, 1, 1, 1, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(
        lambda maps: structural_similarity(maps, b, extent, window=5), a.requires_grad_()
    )


def test_similarity_is_one_for_equal_maps_and_least_for_opposite_ones() -> None:
    maps, extent = torch.randn(1, 1, 9, 9, dtype=torch.float64), torch.tensor(5.0)
    same, opposite = (structural_similarity(maps, sign * maps, extent) for sign in (1, -1))
    torch.testing.assert_close(same, torch.ones_like(same))
    assert -1 <= opposite.min() < 0


def test_a_map_without_any_structure_has_finite_gradients() -> None:
    facts = fakes.spec(channels=1, strides=(8,))
    scene = fakes.scene(facts)
    (neck,), (flat,) = scene.student_neck, scene.step.teacher.neck
    flat.fill_(3.0)
    method = SKD()
    method.setup(facts, facts)
    (gradient,) = torch.autograd.grad(method(scene.step)["level0"], neck)
    assert gradient.isfinite().all()


def test_a_window_without_a_middle_is_refused() -> None:
    with pytest.raises(UserError, match="window of 10 cells"):
        SKD(window=10).setup(fakes.spec(), fakes.spec())
