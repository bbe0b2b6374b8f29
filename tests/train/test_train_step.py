import pytest
import torch
from tests.train.fakes import (
    FakeDetector,
    Pull,
    Random,
    batch,
    batches,
    experiment,
    seeded,
    start_engine,
)
from torch import Tensor, nn

from detdistill import detectors, methods
from detdistill.methods import Method
from detdistill.structures import EVERYTHING, Reads, Step
from detdistill.train.experiment import Optimizer
from detdistill.train.step import TrainStep, world_mean
from detdistill.train.trainer import Trainer

CLASSES = ("circle", "square", "star")


def test_losses_carry_the_name_of_their_origin() -> None:
    step = TrainStep(FakeDetector(), FakeDetector(), {"pull": Pull(), "dice": Random()})
    losses = step(batch())
    assert list(losses) == ["task/box", "task/background", "pull/neck", "dice/noise"]
    assert all(loss.shape == () for loss in losses.values())


def test_an_empty_batch_has_the_same_losses() -> None:
    step = TrainStep(FakeDetector(), FakeDetector(), {"pull": Pull()})
    assert list(step(batch(objects=0))) == list(step(batch()))


def test_without_methods_the_teacher_is_not_even_held() -> None:
    teacher = FakeDetector()
    step = TrainStep(FakeDetector(), teacher)
    assert set(step(batch())) == {"task/box", "task/background"}
    assert not teacher.asked


def test_the_detectors_are_asked_for_what_the_methods_read_and_no_more() -> None:
    class Backbone(Random):
        @property
        def reads(self) -> Reads:
            return Reads(backbone=True)

    student, teacher = FakeDetector(), FakeDetector()
    TrainStep(student, teacher, {"a": Backbone(), "b": Pull()})(batch())
    assert teacher.asked == [Reads(backbone=True)]
    assert student.asked == [EVERYTHING | Reads(backbone=True)]


def test_methods_without_a_teacher_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="teacher"):
        TrainStep(FakeDetector(), None, {"pull": Pull()})


def test_distillation_is_computed_in_float32_under_autocast() -> None:
    seen: list[torch.dtype] = []

    class Looks(Pull):
        def forward(self, step):  # noqa: ANN001, ANN202
            seen.extend([step.student.neck[0].dtype, step.teacher.neck[0].dtype])
            seen.append(self.adapter(step.student.neck[0]).dtype)
            return super().forward(step)

    step = TrainStep(FakeDetector(norm=False), FakeDetector(), {"looks": Looks()})
    with torch.autocast("cpu", torch.bfloat16):
        losses = step(batch())
    assert set(seen) == {torch.float32}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


class Enters(Method):
    """Goes on from the necks through both heads."""

    def forward(self, step: Step) -> dict[str, Tensor]:
        heads = {"own": step.student_head, "crossed": step.teacher_head}
        return {name: head.resume(step.student.neck[0]).sum() for name, head in heads.items()}


class Resuming(nn.Conv2d):
    """A head that notes in which precision it is entered."""

    def resume(self, features: Tensor) -> Tensor:
        found = self(features)
        self.seen = features.dtype, found.dtype
        return found


def entering(precision: torch.dtype) -> tuple[TrainStep, dict[str, Tensor]]:
    student, teacher = seeded(FakeDetector), seeded(FakeDetector, 1)
    for detector in (student, teacher):
        detector.head = Resuming(4, 4, 1)
    step = TrainStep(student, teacher, {"enters": Enters()})
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        return step, step(batch())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_a_head_that_is_entered_computes_as_the_detectors_do(precision: torch.dtype) -> None:
    step, losses = entering(precision)
    for head in (step.student.head, step.teacher.head):
        assert head.seen == (torch.float32, precision)
    assert losses["enters/own"].dtype == losses["enters/crossed"].dtype == torch.float32
    losses["enters/crossed"].backward()
    assert step.student.neck.weight.grad.abs().sum() > 0
    assert step.teacher.head.weight.grad is None


def test_setting_up_methods_draws_nothing_from_the_global_random_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    TrainStep(_built(), _built(), {"pull": Pull()})
    assert torch.equal(torch.rand(3), expected)


def _built() -> FakeDetector:
    with torch.random.fork_rng(devices=[]):
        return FakeDetector()


def test_adapters_start_from_the_seed() -> None:
    def adapter(seed: int) -> torch.Tensor:
        step = TrainStep(FakeDetector(), FakeDetector(), {"pull": Pull()}, seed=seed)
        return step.state_dict()["methods.pull.adapter.weight"]

    assert torch.equal(adapter(1), adapter(1))
    assert not torch.equal(adapter(1), adapter(2))


def test_the_mean_over_one_rank_is_the_value_without_gradient() -> None:
    value = torch.tensor(3.0, requires_grad=True)
    assert world_mean(value) == 3.0
    assert not world_mean(value).requires_grad


def weights_after_training(
    settings: Optimizer, chosen: dict[str, Method], *, real: bool
) -> dict[str, torch.Tensor]:
    trained = experiment(settings)
    torch.manual_seed(0)
    student = detectors.build("gfl-mini-w8", CLASSES) if real else seeded(FakeDetector)
    teacher = detectors.build("gfl-mini-w16", CLASSES) if real else FakeDetector(6)
    trainer = Trainer(TrainStep(student, teacher, chosen), trained, start_engine(trained))
    stream = batches(objects=3)
    for _ in range(4):
        trainer.advance(stream)
    return student.state_dict()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_zero_leaves_every_bit_of_the_student_as_without_a_teacher(name: str) -> None:
    settings = Optimizer(name=name, clip=0.01, warmup_steps=1)  # type: ignore[arg-type]
    idle = {"pull": Pull(weight=0.0), "dice": Random(weight=0.0)}
    alone = weights_after_training(settings, {}, real=False)
    zero = weights_after_training(settings, idle, real=False)
    pulled = weights_after_training(settings, {"pull": Pull()}, real=False)
    assert all(torch.equal(alone[key], zero[key]) for key in alone)
    assert not all(torch.equal(alone[key], pulled[key]) for key in alone)


def test_weight_zero_of_the_published_methods_changes_nothing_in_a_real_student() -> None:
    idle: dict[str, Method] = {
        "crosskd": methods.find("crosskd")(cls_weight=0.0, box_weight=0.0),
        "pkd": methods.find("pkd")(weight=0.0),
        "fitnet": methods.find("fitnet")(weight=0.0, adapter="conv1"),
        "tid": methods.find("tid")(weight=0.0),
    }
    alone = weights_after_training(Optimizer(clip=1.0, warmup_steps=1), {}, real=True)
    zero = weights_after_training(Optimizer(clip=1.0, warmup_steps=1), idle, real=True)
    assert all(torch.equal(alone[key], zero[key]) for key in alone)


def test_only_the_tensors_of_a_batch_decide_the_losses() -> None:
    step = TrainStep(seeded(FakeDetector), FakeDetector(), {"pull": Pull()})
    first, second = step(batch(3)), step(batch(3))
    assert all(torch.equal(first[name], second[name]) for name in first)


def _shapes() -> detectors.Detector:
    torch.manual_seed(0)
    return detectors.build("gfl-quick-w8", CLASSES)


def test_a_folded_teacher_teaches_the_same() -> None:
    student, teacher = _shapes(), _shapes().eval()
    plain, folded = (
        TrainStep(student, teacher, methods.combine.parse("crosskd+pkd"), fold=fold)(batch())
        for fold in (False, True)
    )
    assert plain.keys() == folded.keys()
    for name, loss in plain.items():
        assert torch.allclose(loss, folded[name], rtol=1e-4, atol=1e-6)


def test_the_teacher_is_asked_while_nothing_of_the_student_is_kept() -> None:
    teacher, student = _shapes(), _shapes()
    step = TrainStep(student, teacher, methods.combine.parse("pkd"))
    runs: list[object] = []
    for part in (teacher.backbone, student.backbone):
        part.register_forward_hook(lambda module, *_: runs.append(module))
    step(batch())
    assert runs == [teacher.backbone, student.backbone]


def test_a_method_that_reads_the_neck_alone_never_runs_the_teachers_head() -> None:
    teacher = _shapes()
    step = TrainStep(_shapes(), teacher, methods.combine.parse("pkd"))
    runs: list[object] = []
    for part in (teacher.backbone, teacher.head):
        part.register_forward_hook(lambda module, *_: runs.append(module))
    step(batch())
    assert runs == [teacher.backbone]


@pytest.mark.filterwarnings("ignore")
def test_a_whole_step_compiles_to_one_graph_with_the_same_losses() -> None:
    torch.compiler.reset()
    step = TrainStep(_shapes(), _shapes(), methods.combine.parse("crosskd"), fold=True)
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    losses, found = step(batch()), compiled(batch())
    assert losses.keys() == found.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(found[name], loss)
