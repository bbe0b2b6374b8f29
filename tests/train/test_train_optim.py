import math

import pytest
import torch
from tests.train.fakes import FakeDetector, Pull
from torch import nn

from detdistill import detectors
from detdistill.train import optim
from detdistill.train.assembly import resolved
from detdistill.train.experiment import Experiment, Optimizer
from detdistill.train.step import TrainStep


def test_warm_up_and_cosine_follow_the_formula() -> None:
    settings = Optimizer(lr=1.2e-2, warmup_steps=60)
    for i in range(60):
        expected = 1.2e-2 * (0.01 + 0.99 * i / 59)
        assert optim.learning_rate(i, 600, settings) == pytest.approx(expected, rel=1e-12)
    for i in range(60, 600):
        expected = 1.2e-2 * (1 + math.cos(math.pi * (i - 60) / 540)) / 2
        assert optim.learning_rate(i, 600, settings) == pytest.approx(expected, rel=1e-12)


def test_the_step_schedule_divides_by_ten_at_each_milestone() -> None:
    settings = Optimizer(lr=1.0, warmup_steps=0, schedule="step")
    rates = [round(optim.learning_rate(i, 12, settings), 9) for i in range(12)]
    assert rates == [1.0] * 8 + [0.1] * 3 + [0.01]


def test_the_constant_schedule_stays_after_the_warm_up() -> None:
    settings = Optimizer(lr=0.5, warmup_steps=2, schedule="constant")
    assert [optim.learning_rate(i, 5, settings) for i in range(5)] == [0.005, 0.5, 0.5, 0.5, 0.5]


def test_a_tenth_of_the_steps_is_warm_up_if_nothing_is_said() -> None:
    rates = [optim.learning_rate(i, 50, Optimizer(lr=1.0, schedule="constant")) for i in range(6)]
    assert rates[3] < rates[4] == rates[5] == 1
    assert resolved(Experiment(steps=50)).optimizer.warmup_steps == 5


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("warmup", [0, 1, 3, 10])
def test_short_trainings_have_a_learning_rate(steps: int, warmup: int) -> None:
    settings = Optimizer(lr=1.0, warmup_steps=warmup)
    assert all(0 < optim.learning_rate(i, steps, settings) <= 1 for i in range(steps))


def names_by_decay(module: nn.Module) -> dict[bool, set[str]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = optim._by_decay(module)
    return {decays: {names[id(p)] for p in found} for decays, found in groups.items()}


def test_weights_and_scales_decay_but_biases_and_norms_do_not() -> None:
    found = names_by_decay(FakeDetector())
    assert found == {
        True: {"neck.weight", "head.weight", "scale"},
        False: {"neck.bias", "head.bias", "norm.weight", "norm.bias"},
    }


def test_in_a_real_detector_what_decays_is_a_convolution_or_a_scale() -> None:
    detector = detectors.build("gfl-mini-w8", ("circle", "star"))
    found = names_by_decay(detector)
    shapes = dict(detector.named_parameters())
    assert all(shapes[name].ndim == 4 or "scale" in name for name in found[True])
    assert any("scale" in name for name in found[True])
    assert all(shapes[name].ndim == 1 for name in found[False])
    assert sum(map(len, found.values())) == len(shapes)


def test_frozen_parameters_are_left_out() -> None:
    detector = FakeDetector()
    detector.neck.requires_grad_(requires_grad=False)
    assert not any("neck" in name for names in names_by_decay(detector).values() for name in names)


def test_adapters_have_groups_of_their_own() -> None:
    step = TrainStep(FakeDetector(), FakeDetector(), {"pull": Pull()})
    optimizer = optim.build(step, Optimizer(weight_decay=0.3))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0, 0.3, 0.0]


def test_clipping_shortens_the_gradient_and_reports_what_it_was() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert optim.clip([parameter], None) == 5
    assert parameter.grad.norm() == 5
    assert optim.clip([parameter], 1.0) == 5
    assert parameter.grad.norm() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("skipped", [(False, True, False), (True, True, False, False)])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_step_that_is_to_be_skipped_changes_nothing(name: str, skipped: tuple[bool, ...]) -> None:
    step = TrainStep(FakeDetector())
    optimizer = optim.build(step, Optimizer(name=name))  # type: ignore[arg-type]
    torch.full((10_000,), math.nan)  # what the memory of a momentum could hold otherwise
    for skip in skipped:
        before = [p.detach().clone() for p in step.parameters()]
        for parameter in step.parameters():
            parameter.grad = torch.full_like(parameter, math.nan if skip else 1.0)
        optim.skip_where(optimizer, torch.tensor(skip))
        optimizer.step()
        same = [torch.equal(a, b) for a, b in zip(before, step.parameters(), strict=True)]
        assert all(same) if skip else not any(same)
        assert all(p.isfinite().all() for p in step.parameters())


def test_the_average_is_an_exponential_mean_that_begins_quickly() -> None:
    student = FakeDetector()
    average = optim.Average(student, decay=0.5)
    expected = student.scale.item()
    for index in range(6):
        with torch.no_grad():
            student.scale.add_(1)
            student.norm.running_mean.add_(1)
        average.update(student, index)
        decay = min(0.5, (1 + index) / (10 + index))
        expected = decay * expected + (1 - decay) * student.scale.item()
        assert average.detector.scale.item() == pytest.approx(expected, rel=1e-6)
    assert 0 < average.detector.norm.running_mean.mean() < student.norm.running_mean.mean()
    assert not average.detector.training


@pytest.mark.parametrize("largest", [0.5, 5.0 - 1e-6, 5.0, 5.0 + 1e-5, 50.0])
def test_clipping_is_pytorchs_bit_for_bit(largest: float) -> None:
    mine, theirs = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    for weight in (mine, theirs):
        weight.grad = torch.tensor([3.0, 4.0])
    norm = optim.clip([mine], largest)
    assert norm == nn.utils.clip_grad_norm_([theirs], largest) == 5
    assert mine.grad is not None
    assert theirs.grad is not None
    assert torch.equal(mine.grad, theirs.grad)
