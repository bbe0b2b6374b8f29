import copy
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from tests.train.fakes import (
    Explodes,
    FakeDetector,
    Pull,
    Random,
    batch,
    batches,
    experiment,
    part,
    seeded,
    start_engine,
)

from detdistill import detectors, winograd
from detdistill.methods import combine
from detdistill.train.experiment import Experiment, Optimizer
from detdistill.train.step import TrainStep
from detdistill.train.trainer import Trainer
from detdistill.train.window import NonFiniteError
from detdistill.winograd import WinogradConv2d


def trainer_of(settings: Experiment, **methods: Any) -> Trainer:
    step = TrainStep(seeded(FakeDetector), seeded(FakeDetector, 1), methods)
    return Trainer(step, settings, start_engine(settings))


def advance(trainer: Trainer, steps: int) -> None:
    stream = batches(trainer.done)
    for _ in range(steps):
        trainer.advance(stream)


def test_training_makes_the_loss_smaller() -> None:
    trainer = trainer_of(experiment(Optimizer(lr=0.02, warmup_steps=1)))
    stream = iter([batch(0)] * 8)
    trainer.advance(stream)
    first = sum(trainer.read()[0].values())
    for _ in range(7):
        trainer.advance(stream)
    assert sum(trainer.read()[0].values()) < first


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_restored_training_goes_on_bit_for_bit(tmp_path, stop: int, ema: float | None) -> None:  # noqa: ANN001
    settings = experiment(Optimizer(ema=ema, warmup_steps=2))
    whole = trainer_of(settings, pull=Pull(), dice=Random())
    advance(whole, 5)
    first = trainer_of(settings, pull=Pull(), dice=Random())
    advance(first, stop)
    torch.save(first.state(), tmp_path / "state.pt")
    second = trainer_of(settings, pull=Pull(), dice=Random())
    torch.manual_seed(99)
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    advance(second, 5 - stop)
    for mine, theirs in ((whole.step, second.step), (whole.detector, second.detector)):
        expected = mine.state_dict()
        assert all(torch.equal(expected[k], v) for k, v in theirs.state_dict().items())
    assert whole.read() == second.read()


def test_accumulated_micro_batches_equal_one_batch_where_normalisers_are_equal() -> None:
    one = experiment(Optimizer(name="sgd", warmup_steps=1))
    two = experiment(Optimizer(name="sgd", warmup_steps=1), accumulate=2)
    trainers = []
    for settings, rows in ((one, [slice(0, 4)]), (two, [slice(0, 2), slice(2, 4)])):
        step = TrainStep(seeded(lambda: FakeDetector(norm=False)))
        trainer = Trainer(step, settings, start_engine(settings))
        trainer.advance(iter([part(batch(), chosen) for chosen in rows]))
        trainers.append(trainer)
    single, double = (t.step.state_dict() for t in trainers)
    assert all(torch.allclose(single[k], double[k], atol=1e-7) for k in single)
    assert sum(trainers[0].read()[0].values()) == pytest.approx(
        sum(trainers[1].read()[0].values()), rel=1e-5
    )


def test_a_loss_that_is_not_a_number_stops_before_the_weights_move() -> None:
    trainer = trainer_of(experiment(), bad=Explodes(at=2), pull=Pull())
    advance(trainer, 2)
    before = copy.deepcopy(dict(trainer.step.named_parameters()))
    with pytest.raises(NonFiniteError, match=r"step 3 .*bad/boom is nan .*images 200, 201, 202"):
        advance(trainer, 1)
    assert all(torch.equal(before[k], v) for k, v in trainer.step.named_parameters())


def test_a_gradient_that_is_not_a_number_stops_as_well() -> None:
    trainer = trainer_of(experiment())
    trainer.step.student.neck.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteError, match="gradient was not finite although every loss was"):
        advance(trainer, 1)


def test_a_training_in_fp16_that_never_moves_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(experiment())
    engine = trainer._engine
    scale = 2.0**-8
    monkeypatch.setattr(engine, "scaler", SimpleNamespace(get_scale=lambda: scale))
    trainer.window.close_step(torch.tensor(math.inf))
    trainer.check()
    scale = 2.0**-11
    with pytest.raises(NonFiniteError, match="gradient was not finite although every loss was"):
        trainer.check()


def test_losses_are_means_over_the_steps_since_they_were_read() -> None:
    settings = experiment(Optimizer(lr=1e-12, warmup_steps=0))
    losses = []
    for steps in (1, 1, 2):
        trainer = trainer_of(settings)
        start = {0: 0, 1: 1, 2: 0}[len(losses)]
        stream = batches(start)
        for _ in range(steps):
            trainer.advance(stream)
        losses.append(trainer.read()[0]["task/box"])
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-4)


def test_what_is_evaluated_is_the_average_if_there_is_one() -> None:
    plain, averaged = (trainer_of(experiment(Optimizer(ema=e))) for e in (None, 0.9))
    assert plain.detector is plain.step.student
    assert averaged.detector is not averaged.step.student


def test_bfloat16_trains() -> None:
    settings = experiment(precision="bf16")
    trainer = trainer_of(settings, pull=Pull())
    advance(trainer, 2)
    assert all(math.isfinite(value) for value in trainer.read()[0].values())
    assert {p.dtype for p in trainer.step.parameters()} == {torch.float32}


def test_a_restored_training_draws_the_same_regions() -> None:
    settings = experiment(Optimizer(warmup_steps=2))

    def two_stage() -> Trainer:
        torch.manual_seed(0)
        step = TrainStep(detectors.build("faster_rcnn-quick-w8", ("thing",)))
        return Trainer(step, settings, start_engine(settings))

    whole = two_stage()
    advance(whole, 3)
    first = two_stage()
    advance(first, 2)
    second = two_stage()
    torch.manual_seed(99)
    second.restore(first.state())
    advance(second, 1)
    expected = whole.step.state_dict()
    assert all(torch.equal(expected[k], v) for k, v in second.step.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, True),
        ({"precision": "bf16"}, True),
        ({"winograd": False}, False),
        ({"compile": True}, False),
    ],
)
def test_both_detectors_multiply_less_where_it_helps(
    settings: dict[str, Any], wanted: bool
) -> None:
    chosen = replace(experiment(), **settings)
    small, large = (detectors.build("gfl-mini-w8", ("a", "b")) for _ in range(2))
    step = TrainStep(small, large, combine.parse("crosskd"))
    Trainer(step, chosen, start_engine(chosen))
    for detector in (step.student, step.teacher.detector):
        assert any(isinstance(m, WinogradConv2d) for m in detector.modules()) == wanted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_that_multiply_less_lead_to_about_the_same_losses(
    monkeypatch: pytest.MonkeyPatch, precision: Literal["fp32", "bf16"]
) -> None:
    monkeypatch.setattr(winograd, "WORTH_IT", 0)
    settings = experiment(precision=precision)
    losses = []
    for quick in (False, True):
        torch.manual_seed(0)
        small, large = (detectors.build("gfl-mini-w8", ("thing",)) for _ in range(2))
        step = TrainStep(small, large, combine.parse("crosskd"))
        trainer = Trainer(step, replace(settings, winograd=quick), start_engine(settings))
        advance(trainer, 3)
        losses.append(trainer.read()[0])
    usual, ours = losses
    assert ours != usual
    assert ours == pytest.approx(usual, rel=1e-3 if precision == "fp32" else 0.05)
