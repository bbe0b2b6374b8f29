"""What each part of a step is said to cost."""

import time
from itertools import repeat

import pytest
import torch
from tests.train.fakes import batch, experiment, start_engine

from detdistill import detectors, methods, profiling
from detdistill.detectors import gfl
from detdistill.train.step import TrainStep
from detdistill.train.trainer import Trainer


@pytest.fixture
def trainer() -> Trainer:
    torch.manual_seed(0)
    student, teacher = (detectors.build("gfl-quick-w8", ("thing",)) for _ in range(2))
    step = TrainStep(student, teacher, methods.combine.parse("crosskd+pkd"))
    return Trainer(step, experiment(), start_engine())


def test_every_part_of_a_step_has_its_share(trainer: Trainer) -> None:
    found = {share.part: share for share in profiling.shares(trainer, repeat(batch()), 1)}
    forward = ("data", "teacher", "optimizer", "student, assignment")
    both = (
        *(f"student, {part}" for part in ("backbone", "neck", "head", "quality_focal_loss")),
        "method crosskd",
        "method pkd",
    )
    assert all(found[part].forward_ms > 0 for part in (*forward, *both))
    assert all(found[part].backward_ms > 0 for part in both)
    assert all(found[part].backward_ms == 0 for part in forward)
    assert sum(share.share for share in found.values()) == pytest.approx(1)


def test_a_slow_part_is_seen_as_such(trainer: Trainer) -> None:
    def slow():  # noqa: ANN202
        while True:
            time.sleep(1)
            yield batch()

    trainer.advance(iter([batch()]))
    assert profiling.shares(trainer, slow(), 1)[0].part == "data"


def test_nothing_is_marked_afterwards(trainer: Trainer) -> None:
    before = dict(vars(gfl)), [set(vars(module)) for module in trainer.step.modules()]
    assigner = trainer.step.student.assigner
    profiling.shares(trainer, repeat(batch()), 1)
    assert before == (dict(vars(gfl)), [set(vars(module)) for module in trainer.step.modules()])
    assert trainer.step.student.assigner is assigner
    assert "_move" not in vars(trainer)
