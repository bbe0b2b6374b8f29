"""Two ranks that talk through gloo, on one machine."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tests.train.fakes import (
    Explodes,
    FakeDetector,
    Pull,
    batch,
    batches,
    experiment,
    part,
    seeded,
    start_engine,
)
from tests.train.processes import Launcher
from torch import nn

from detdistill import detectors, methods
from detdistill.detectors.region_architecture import Sampling
from detdistill.errors import UserError
from detdistill.methods import Method
from detdistill.structures import Batch
from detdistill.train.experiment import Experiment, Optimizer
from detdistill.train.lock import held
from detdistill.train.loop import train
from detdistill.train.step import TrainStep, world_mean
from detdistill.train.trainer import Trainer
from detdistill.train.window import NonFiniteError

Gradients = dict[str, torch.Tensor]


def fake_step() -> TrainStep:
    student = seeded(lambda: FakeDetector(norm=False))
    return TrainStep(student, seeded(lambda: FakeDetector(6), 1), {"pull": Pull()})


def real_step() -> TrainStep:
    """Sure of itself, so that no normaliser is at its floor;
    statistics of batches are per rank, so there are none."""
    torch.manual_seed(0)
    student = detectors.build("gfl-mini-w8", ("circle", "star"))
    teacher = detectors.build("gfl-mini-w8", ("circle", "star"))
    for name, parameter in (*student.named_parameters(), *teacher.named_parameters()):
        if name == "head.cls.bias":
            nn.init.zeros_(parameter)
    chosen: dict[str, Method] = {
        "crosskd": methods.find("crosskd")(align=False),
        "fitnet": methods.find("fitnet")(adapter="conv1"),
        "tid": methods.find("tid")(),
    }
    step = TrainStep(student, teacher, chosen)
    keep_statistics(student)
    return step


def two_stage_step() -> TrainStep:
    """Trained on every anchor and region, because each rank has its own random state."""
    torch.manual_seed(0)
    architecture = detectors.describe("faster_rcnn-quick-w8", ("circle", "star"))
    everything = Sampling(number=10**6, positive_share=1.0)
    student, teacher = (
        detectors.from_architecture(
            replace(architecture, anchor_sampling=everything, region_sampling=everything)
        )
        for _ in range(2)
    )
    step = TrainStep(student, teacher, {"crosskd": methods.find("crosskd")()})
    keep_statistics(student)
    return step


def query_step() -> TrainStep:
    """Without any object its normaliser is 1 on every rank, as published, not 1 of all."""
    torch.manual_seed(0)
    student, teacher = (
        detectors.build("deformable_detr-quick-w8", ("circle", "star")) for _ in range(2)
    )
    step = TrainStep(student, teacher, {"crosskd": methods.find("crosskd")()})
    keep_statistics(student)
    return step


def keep_statistics(student: nn.Module) -> None:
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train = lambda _mode=True, module=module: module  # type: ignore[method-assign]
            module.training = False


def half_empty(whole: Batch) -> Batch:
    """The same batch without objects in its second half."""
    valid = whole.truth.valid.clone()
    valid[len(valid) // 2 :] = False
    return replace(whole, truth=replace(whole.truth, valid=valid))


CASES: dict[str, tuple[Callable[[], TrainStep], Batch]] = {
    "fake": (fake_step, batch(1)),
    "fake, one rank without objects": (fake_step, half_empty(batch(1))),
    "fake, no objects at all": (fake_step, batch(1, objects=0)),
    "real": (real_step, batch(1)),
    "real, one rank without objects": (real_step, half_empty(batch(1))),
    "real, no objects at all": (real_step, batch(1, objects=0)),
    "two stages": (two_stage_step, batch(1)),
    "two stages, one rank without objects": (two_stage_step, half_empty(batch(1))),
    "two stages, no objects at all": (two_stage_step, batch(1, objects=0)),
    "queries": (query_step, batch(1)),
    "queries, one rank without objects": (query_step, half_empty(batch(1))),
}


def gradients(build: Callable[[], TrainStep], mine: Batch) -> Gradients:
    trainer = Trainer(build(), experiment(), start_engine())
    trainer._descend(mine, 0)
    named = trainer.step.named_parameters()
    return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


def on_rank(rank: int) -> dict[str, Gradients]:
    rows = slice(2 * rank, 2 * rank + 2)
    return {name: gradients(build, part(whole, rows)) for name, (build, whole) in CASES.items()}


@pytest.fixture(scope="module")
def of_two_ranks(
    launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Gradients]]:
    return launcher.on_two_ranks(on_rank, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_two_ranks_equal_those_of_one_process_with_the_big_batch(
    case: str, of_two_ranks: list[dict[str, Gradients]]
) -> None:
    build, whole = CASES[case]
    expected = gradients(build, whole)
    first, second = (answer[case] for answer in of_two_ranks)
    assert first.keys() == expected.keys()
    rounding = 1e-7 * max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert torch.equal(first[name], second[name]), name
        size = float(gradient.abs().max())  # of a bias before a softmax: 0 but for rounding
        assert torch.allclose(first[name], gradient, rtol=1e-4, atol=2e-5 * size + rounding), name


def world_means(rank: int) -> tuple[float, bool]:
    start_engine()
    mean = world_mean(torch.tensor(float(rank), requires_grad=True))
    return float(mean), mean.requires_grad


def test_the_mean_over_ranks_is_the_same_on_both_and_has_no_gradient(
    launcher: Launcher, tmp_path: Path
) -> None:
    assert launcher.on_two_ranks(world_means, tmp_path) == [(0.5, False), (0.5, False)]


def explode(_rank: int) -> str:
    step = TrainStep(seeded(FakeDetector), FakeDetector(), {"bad": Explodes(at=1, rank=1)})
    trainer = Trainer(step, experiment(), start_engine())
    stream = batches()
    trainer.advance(stream)
    before = [parameter.detach().clone() for parameter in step.parameters()]
    with pytest.raises(NonFiniteError) as error:
        trainer.advance(stream)
    assert all(torch.equal(a, b) for a, b in zip(before, step.parameters(), strict=True))
    return str(error.value)


def test_a_loss_that_breaks_on_one_rank_stops_both_before_the_weights_move(
    launcher: Launcher, tmp_path: Path
) -> None:
    first, second = launcher.on_two_ranks(explode, tmp_path)
    assert first == second
    assert "At step 2 the loss bad/boom is nan" in first


def what_is_wrapped(_rank: int) -> dict[str, Any]:
    teacher = seeded(lambda: FakeDetector(6), 1)
    step = TrainStep(seeded(FakeDetector), teacher, {"pull": Pull()})
    settings = experiment(Optimizer(warmup_steps=1), accumulate=2)
    trainer = Trainer(step, settings, start_engine(settings))
    wrapped = trainer._module
    hidden = {id(tensor) for tensor in (*teacher.parameters(), *teacher.buffers())}
    seen = {id(tensor) for tensor in (*wrapped.parameters(), *wrapped.buffers())}
    stream = batches()
    for _ in range(3):
        trainer.advance(stream)
    return {
        "kind": type(wrapped).__name__,
        "sees the teacher": bool(hidden & seen),
        "weights": {name: value.detach().clone() for name, value in step.named_parameters()},
    }


def test_ddp_wraps_the_whole_step_but_for_the_teacher(launcher: Launcher, tmp_path: Path) -> None:
    first, second = launcher.on_two_ranks(what_is_wrapped, tmp_path)
    assert first["kind"] == "DistributedDataParallel"
    assert not first["sees the teacher"]
    assert "methods.pull.adapter.weight" in first["weights"]
    assert all(torch.equal(first["weights"][k], v) for k, v in second["weights"].items())


def train_on_rank(chosen: Experiment, folder: Path, _rank: int) -> dict[str, Any]:
    return train(chosen, folder, device="cpu", resume=True)


def go_on_alone(chosen: Experiment, folder: Path, rank: int) -> str:
    """Only the first rank finds the checkpoint, as on machines that do not share a disk."""
    mine = folder / f"rank{rank}"
    mine.mkdir()
    if rank == 0:
        shutil.copytree(folder / "run", mine / "run")
    with pytest.raises(UserError) as error:
        train(chosen, mine / "run", device="cpu", resume=True)
    return str(error.value)


def test_ranks_that_find_different_checkpoints_do_not_go_on(
    plain: Experiment, teacher: Path, launcher: Launcher, tmp_path: Path
) -> None:
    shutil.copytree(teacher, tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    said = launcher.on_two_ranks(partial(go_on_alone, plain, tmp_path), tmp_path)
    assert all("different checkpoints" in text for text in said)


def refused(chosen: Experiment, folder: Path, _rank: int) -> str:
    with pytest.raises(UserError) as error:
        train(chosen, folder, device="cpu")
    return str(error.value)


def test_every_rank_hears_that_another_training_is_at_work(
    plain: Experiment, launcher: Launcher, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with held(run, Accelerator(cpu=True)):
        said = launcher.on_two_ranks(partial(refused, plain, run), tmp_path)
    assert all("Another training is at work" in text for text in said)


def test_two_ranks_train_one_run(
    plain: Experiment, teacher: Path, launcher: Launcher, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    chosen = replace(plain, teacher=str(teacher), methods={"pkd": {}}, validate_every=3, steps=4)
    summaries = launcher.on_two_ranks(partial(train_on_rank, chosen, run), tmp_path)
    assert summaries[0] == summaries[1]
    assert summaries[0]["images"] == 4
    assert load_file(run / "student.safetensors")
    assert train(chosen, run, resume=True) == summaries[0]
