from __future__ import annotations

import pytest
import torch
from tests import fakes
from torch import nn

from detdistill.methods import UnsuitablePairError
from detdistill.methods.fitnet import FitNet


def test_it_is_half_the_mean_squared_difference_averaged_over_the_levels() -> None:
    method, scene = FitNet(weight=2.0), fakes.scene()
    method.setup(fakes.spec(), fakes.spec())
    necks = zip(scene.step.student.neck, scene.step.teacher.neck, strict=True)
    wanted = [2.0 / 3 * (student - teacher).pow(2).mean() / 2 for student, teacher in necks]
    terms = method(scene.step)
    assert list(terms) == ["level0", "level1", "level2"]
    torch.testing.assert_close(list(terms.values()), wanted)


def test_equal_widths_need_no_parameters() -> None:
    method = FitNet()
    method.setup(fakes.spec(), fakes.spec())
    assert not list(method.parameters())


@pytest.mark.parametrize(("adapter", "size"), [("auto", 1), ("conv1", 1), ("conv3", 3)])
def test_different_widths_get_a_convolution_per_level(adapter: str, size: int) -> None:
    method = FitNet(adapter=adapter)  # type: ignore[arg-type]
    method.setup(fakes.spec(channels=12), fakes.spec(channels=8))
    convolutions = list(method.adapters)
    assert all(isinstance(layer, nn.Conv2d) for layer in convolutions)
    assert [layer.weight.shape for layer in convolutions] == [(12, 8, size, size)] * 3


def test_different_widths_without_an_adapter_are_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="12 channels and the student 8"):
        FitNet(adapter="none").setup(fakes.spec(channels=12), fakes.spec(channels=8))


def test_different_strides_are_refused() -> None:
    with pytest.raises(UnsuitablePairError, match="strides"):
        FitNet().setup(fakes.spec(strides=(4, 8, 16)), fakes.spec())
