import copy

import torch
from tests.train.fakes import FakeDetector, Pull, batch, batches, experiment, start_engine
from torch import nn

from detdistill.structures import Reads
from detdistill.train.frozen import Frozen
from detdistill.train.step import TrainStep
from detdistill.train.trainer import Trainer


def taught() -> tuple[TrainStep, FakeDetector]:
    teacher = FakeDetector(channels=6)
    return TrainStep(FakeDetector(), teacher, {"pull": Pull()}), teacher


def test_the_teacher_is_found_by_nobody_who_looks_for_weights() -> None:
    step, teacher = taught()
    mine = {id(tensor) for tensor in (*teacher.parameters(), *teacher.buffers())}
    seen = {id(tensor) for tensor in (*step.parameters(), *step.buffers())}
    assert not mine & seen
    assert not any("teacher" in name for name in step.state_dict())
    assert teacher not in list(step.modules())


def test_the_teacher_stays_in_evaluation_mode() -> None:
    step, teacher = taught()
    step.train()
    assert step.student.training
    assert not any(module.training for module in teacher.modules())


def test_training_changes_neither_weights_nor_statistics_of_the_teacher() -> None:
    step, teacher = taught()
    before = copy.deepcopy(teacher.state_dict())
    trainer = Trainer(step, experiment(), start_engine())
    stream = batches()
    for _ in range(3):
        trainer.advance(stream)
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_optimizer_holds_student_and_methods_only() -> None:
    step, _ = taught()
    trainer = Trainer(step, experiment(), start_engine())
    held = {id(p) for group in trainer._optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in (*step.student.parameters(), *step.methods.parameters())}


def test_the_teacher_moves_with_the_step() -> None:
    step, teacher = taught()
    step.to(torch.float64)
    assert {p.dtype for p in teacher.parameters()} == {torch.float64}
    step.to(torch.float32)
    step.to(memory_format=torch.channels_last)
    assert teacher.neck.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_copy_has_a_teacher_of_its_own() -> None:
    step, teacher = taught()
    copied = copy.deepcopy(step)
    assert copied.teacher is not None
    assert copied.teacher.detector is not teacher
    assert torch.equal(copied.teacher.detector.neck.weight, teacher.neck.weight)


def test_gradients_pass_through_the_head_but_never_into_it() -> None:
    frozen = Frozen(FakeDetector())
    neck = torch.rand(1, 4, 8, 8, requires_grad=True)
    head = frozen.head
    assert isinstance(head, nn.Module)
    head(neck).sum().backward()
    assert neck.grad is not None
    assert all(parameter.grad is None for parameter in head.parameters())


def test_a_neck_that_nobody_reads_is_not_kept() -> None:
    frozen = Frozen(FakeDetector())
    necks = [frozen(batch().images, None, Reads(neck=reads)).neck for reads in (False, True)]
    assert [bool(neck) for neck in necks] == [False, True]


def test_the_teachers_output_can_be_used_in_a_loss() -> None:
    frozen = Frozen(FakeDetector())
    output = frozen(batch().images, None, Reads())
    assert not output.neck[0].requires_grad
    assert not output.neck[0].is_inference()
