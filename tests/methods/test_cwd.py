from __future__ import annotations

import numpy as np
import pytest
import torch
from tests import fakes

from detdistill.methods.cwd import CWD


def oracle(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    """Equations 4 and 5 of the paper, image by image and channel by channel."""
    total = 0.0
    images, channels = student.shape[:2]
    for image in range(images):
        for channel in range(channels):
            maps = [x[image, channel].ravel() / temperature for x in (student, teacher)]
            p, q = (np.exp(m - m.max()) / np.exp(m - m.max()).sum() for m in maps)
            total += (q * np.log(q / p)).sum() * temperature**2
    return total / (channels * images)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_papers_formula(temperature: float) -> None:
    step = fakes.scene(dtype=torch.float64).step
    method = CWD(temperature=temperature)
    method.setup(fakes.spec(), fakes.spec())
    for term, student, teacher in zip(
        method(step).values(), step.student.neck, step.teacher.neck, strict=True
    ):
        wanted = 10 * oracle(student.detach().numpy(), teacher.detach().numpy(), temperature)
        assert float(term.detach()) == pytest.approx(wanted, rel=1e-9)


def test_how_strongly_a_channel_responds_does_not_matter_only_where() -> None:
    scene = fakes.scene(same=True)
    method = CWD()
    method.setup(fakes.spec(), fakes.spec())
    for level in scene.student_neck:
        level.data += 3.0
    assert all(term < 1e-5 for term in method(scene.step).values())
