import gc
import json
import math
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.train.fakes import Detached, FakeDetector, Pull, batch, start_engine

from detdistill import detectors
from detdistill.augmentation import Augmentation
from detdistill.cli import verbs
from detdistill.detectors import Detector
from detdistill.errors import UserError
from detdistill.files import read_json, write_json
from detdistill.interop import checkpoint as interop
from detdistill.train import experiment as experiments
from detdistill.train import log, loop, reach
from detdistill.train.announce import announcement
from detdistill.train.assembly import checkpoints_of
from detdistill.train.assess import assess
from detdistill.train.experiment import Experiment, Optimizer
from detdistill.train.folder import RunFolder
from detdistill.train.loop import train
from detdistill.train.step import TrainStep
from detdistill.train.trainer import Trainer
from detdistill.train.window import NonFiniteError

TIMES = {"seconds", "cpu_seconds", "step_ms"}


def distilled(plain: Experiment, teacher: Path) -> Experiment:
    return replace(plain, teacher=str(teacher), methods={"crosskd": {}, "pkd": {}})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student.safetensors")


def metrics(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in lines
        if line["kind"] == kind
    ]


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_folder_holds_what_was_promised(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    summary = train(replace(distilled(plain, teacher), validate_every=3), run, device="cpu")
    assert {path.name for path in run.iterdir()} == {
        "experiment.yaml", "environment.json", "status.json", "metrics.jsonl", "train.log",
        "checkpoints", "student.safetensors", "student.json", "evaluation.json", "detections.json",
    }  # fmt: skip
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last", "best"}
    assert read_json(run / "status.json") == {"state": "finished", "step": 6, "steps": 6}
    assert read_json(run / "evaluation.json") == summary
    assert (run / "detections.json").read_text().count("\n") == 1
    assert summary["split"] == "test"
    assert summary["images"] == 4
    assert summary["step"] == 6
    assert interop.load(run / "checkpoints" / "best").spec.classes
    assert 0 < summary["cost"]["step_ms"] < 1000 * summary["cost"]["seconds"]
    assert summary["facts"]["parameters"] == 125_627


def test_the_metrics_keep_task_and_distillation_apart(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    train(replace(distilled(plain, teacher), validate_every=4), tmp_path, device="cpu")
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert set(lines[0]["task"]) == {"cls", "box", "dfl"}
    assert {name.split("/")[0] for name in lines[0]["distill"]} == {"crosskd", "pkd"}
    assert lines[-1]["lr"] > 0
    evaluations = metrics(tmp_path, "eval")
    assert [line["step"] for line in evaluations] == [4, 6]
    assert "AP50" in evaluations[0]["metrics"]


def test_the_student_file_is_a_plain_student(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    train(distilled(plain, teacher), tmp_path, device="cpu")
    fresh = detectors.build("gfl-quick-w8", interop.load(tmp_path).spec.classes)
    assert weights(tmp_path).keys() == fresh.state_dict().keys()
    card = read_json(tmp_path / "student.json")
    assert card["teacher"] == interop.fingerprint(interop.load(teacher))


def test_the_written_experiment_is_resolved_and_runs_again(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    train(distilled(plain, teacher), tmp_path / "one", device="cpu")
    written = experiments.load(tmp_path / "one" / "experiment.yaml")
    assert written.methods["pkd"]["weight"] == 6.0
    train(written, tmp_path / "two", device="cpu")
    assert same_weights(tmp_path / "one", tmp_path / "two")


def test_the_log_says_where_the_student_comes_from(teacher: Path) -> None:
    text = (teacher / "train.log").read_text()
    assert "student gfl-quick-w8: 125,627 parameters, random, from seed 0" in text
    assert "step 6/6" in text


def test_the_first_weights_depend_on_the_seed_alone(plain: Experiment, teacher: Path) -> None:
    def first(experiment: Experiment) -> dict[str, torch.Tensor]:
        return loop.build(experiment).student.state_dict()

    torch.manual_seed(3)
    alone = first(plain)
    taught = first(distilled(plain, teacher))
    other = first(replace(plain, seed=1))
    assert all(torch.equal(alone[name], taught[name]) for name in alone)
    assert not all(torch.equal(alone[name], other[name]) for name in alone)


def test_methods_of_weight_zero_give_the_student_of_training_alone(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    zero = {"pkd": {"weight": 0.0}, "fitnet": {"weight": 0.0, "adapter": "conv1"}}
    train(replace(plain, teacher=str(teacher), methods=zero), tmp_path, device="cpu")
    assert same_weights(teacher, tmp_path)


@pytest.mark.parametrize("stop_at", [1, 4, 5])
def test_a_resumed_run_equals_one_that_was_never_stopped(
    plain: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    experiment = replace(
        plain, validate_every=3, accumulate=2, optimizer=Optimizer(ema=0.9, warmup_steps=2)
    )
    train(experiment, tmp_path / "whole", device="cpu")
    with monkeypatch.context() as patch:
        interrupt_after(patch, stop_at)
        with pytest.raises(KeyboardInterrupt, match=f"saved up to step {stop_at} of 6.*--resume"):
            train(experiment, tmp_path / "parts", device="cpu")
    assert read_json(tmp_path / "parts" / "status.json")["state"] == "interrupted"
    train(experiment, tmp_path / "parts", resume=True, device="cpu")
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    for kind in ("train", "eval"):
        assert metrics(tmp_path / "whole", kind) == metrics(tmp_path / "parts", kind)
    assert "resumed" in read_json(tmp_path / "parts" / "environment.json")


def interrupt_after(patch: pytest.MonkeyPatch, step: int) -> None:
    advance = Trainer.advance

    def advance_and_ask(self: Trainer, *arguments: Any) -> None:
        advance(self, *arguments)
        if self.done == step:
            patch.setattr(loop._Run, "_must_stop", lambda _: True)

    patch.setattr(Trainer, "advance", advance_and_ask)


def test_an_interrupted_final_evaluation_is_made_up_for(
    plain: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "assess", interrupted)
        with pytest.raises(KeyboardInterrupt, match="saved up to step 6"):
            train(plain, tmp_path, device="cpu")
    summary = train(plain, tmp_path, resume=True, device="cpu")
    assert summary["step"] == 6


def test_resuming_a_finished_run_returns_its_numbers_at_once(
    plain: Experiment, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "build", None)
    assert train(plain, teacher, resume=True) == read_json(teacher / "evaluation.json")


def test_resuming_where_nothing_is_starts(plain: Experiment, tmp_path: Path) -> None:
    assert train(plain, tmp_path / "new", resume=True, device="cpu")["step"] == 6


def test_a_finished_run_is_not_overwritten_without_being_asked(
    plain: Experiment, teacher: Path
) -> None:
    with pytest.raises(UserError, match=r"holds a run already.*resume.*overwrite"):
        train(plain, teacher)


def test_overwriting_removes_the_run_and_nothing_else(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher, run)
    (run / "notes.txt").write_text("mine")
    train(replace(plain, steps=1), run, overwrite=True, device="cpu")
    assert (run / "notes.txt").read_text() == "mine"
    assert [line["step"] for line in metrics(run)] == [1]


def test_a_run_is_not_overwritten_by_one_that_needs_it(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher, run)
    for needed in (run, run / "student.safetensors", run / "checkpoints" / "last"):
        for change in ({"student": str(needed)}, {"teacher": str(needed), "methods": {"pkd": {}}}):
            with pytest.raises(UserError, match="needs and would overwrite"):
                train(replace(plain, **change), run, overwrite=True, device="cpu")
    assert same_weights(run, teacher)


def test_a_run_may_lie_around_its_teacher(
    plain: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RunFolder(tmp_path).spare(["teacher", str(tmp_path / "runs" / "teacher")])
    assert checkpoints_of(plain) == []


def test_a_folder_with_nothing_but_what_a_kill_left_can_be_trained_in(
    plain: Experiment, tmp_path: Path
) -> None:
    left = tmp_path / ".experiment.yaml.0a1b2c3d.tmp"
    left.write_text("data: sha")
    train(replace(plain, steps=1), tmp_path, resume=True)
    assert not left.exists()


def test_a_folder_that_was_half_cleared_can_be_overwritten(
    plain: Experiment, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(teacher, run)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder(run).prepare(plain, overwrite=True)
    assert not (run / "student.safetensors").exists()
    RunFolder(run).admit(plain, resume=False, overwrite=True)


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_pictures_are_scaled_in_training_and_in_every_evaluation(
    plain: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(plain, resize=(96, 128), steps=2, validate_every=2)
    seen = []
    advance = Trainer.place

    def place(self: Trainer, batch: Any) -> Any:
        seen.append(tuple(batch.images.shape[-2:]))
        return advance(self, batch)

    monkeypatch.setattr(Trainer, "place", place)
    summary = train(small, tmp_path, device="cpu")
    assert set(seen) == {(96, 96)}
    assert summary["facts"]["image_size"] == [96, 96]
    assert "scaled to at most 96 x 128" in (tmp_path / "train.log").read_text()
    assert verbs.evaluate(str(tmp_path), data=plain.data)["metrics"] == summary["metrics"]


def test_a_letterbox_is_the_same_in_training_and_in_every_evaluation(
    plain: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    normalise = Detector.normalise

    def look(self: Detector, images: torch.Tensor, sizes: torch.Tensor | None) -> torch.Tensor:
        seen.add(tuple(images.shape[-2:]))
        return normalise(self, images, sizes)

    monkeypatch.setattr(Detector, "normalise", look)
    augment = Augmentation(jitter=(0.5, 1.5), photometric=True)
    boxed = replace(plain, letterbox=96, augment=augment, steps=2)
    summary = train(boxed, tmp_path, device="cpu")
    again = verbs.evaluate(str(tmp_path), data=plain.data)
    verbs.predict(str(tmp_path), [f"{plain.data[5:]}/test2017"], out=str(tmp_path / "drawn"))
    assert seen == {(96, 96)}
    assert again["metrics"] == summary["metrics"]
    card = read_json(tmp_path / "student.json")
    assert (card["letterbox"], card["resize"]) == (96, [96, 96])
    assert experiments.load(tmp_path / "experiment.yaml").augment == augment


def test_what_is_to_know_of_the_data_is_said_at_the_start(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(plain.data.removeprefix("coco:"), folder)
    (folder / "annotations" / "instances_test2017.json").unlink()
    file = folder / "annotations" / "instances_train2017.json"
    content = read_json(file)
    content["annotations"][0]["bbox"][2] = 0
    write_json(file, content)
    assembly = loop.build(replace(plain, data=f"coco:{folder}", skippable=0.02))
    said = "\n".join(announcement(plain, assembly, start_engine(), teacher))
    assert "note: train data: 1 annotation(s) left out: box has no area" in said
    assert "note: test data: the data set has no such part; val stands in" in said


@pytest.mark.parametrize(("warmup", "rises"), [(None, False), (1, False), (10**4, True)])
def test_a_warm_up_that_does_not_end_is_noted(
    plain: Experiment, tmp_path: Path, warmup: int | None, rises: bool
) -> None:
    optimizer = replace(plain.optimizer, warmup_steps=warmup)
    long = replace(plain, optimizer=optimizer)
    lines = announcement(long, loop.build(long), start_engine(), tmp_path)
    assert any("rises to the end" in line for line in lines) is rises


def test_evaluation_takes_no_more_images_at_a_time_than_a_step(
    plain: Experiment, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def predict(*_: object, batch_size: int, **__: object) -> list[Any]:
        sizes.append(batch_size)
        return []

    monkeypatch.setattr("detdistill.evaluate.run.predict", predict)
    chosen = replace(plain, batch_size=8, accumulate=4)
    assess(interop.load(teacher), loop.build(chosen).test, chosen, start_engine(chosen))
    assert sizes == [2]


def test_a_detectors_name_goes_before_a_folder_of_that_name(
    plain: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / plain.student).mkdir()
    monkeypatch.chdir(tmp_path)
    assert "random" in loop.build(plain).origin


def test_another_experiment_cannot_be_resumed(plain: Experiment, teacher: Path) -> None:
    with pytest.raises(UserError, match=r"optimizer.lr: 0.002, now 1; seed: 0, now 5"):
        train(
            replace(plain, seed=5, optimizer=Optimizer(lr=1, warmup_steps=2)), teacher, resume=True
        )


def test_a_teacher_that_was_replaced_is_noticed(
    plain: Experiment, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(teacher, mine)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(distilled(plain, mine), run, device="cpu")
    detector = interop.load(mine)
    torch.nn.init.zeros_(next(detector.parameters()))
    interop.save(detector, mine / "student.safetensors")
    with pytest.raises(UserError, match="other weights"):
        train(distilled(plain, mine), run, resume=True, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": "gfl-mini-w7x"}, "detector"),
        ({"student": "gfl-mimi-w8"}, "Unknown detector"),
        ({"student": "runs/nowhere"}, "no checkpoint at runs/nowhere"),
        ({"data": "shapez"}, "Unknown data set"),
        ({"data": "coco:/nowhere"}, "/nowhere"),
        ({"methods": {"crosskt": {}}, "teacher": "T"}, "Unknown method 'crosskt'.*'crosskd'"),
        ({"methods": {"pkd": {"wait": 1}}, "teacher": "T"}, "wait"),
        ({"methods": {"pkd": {}}, "teacher": "/nowhere"}, "no checkpoint at /nowhere"),
        ({"methods": {"pkd": {}}}, "needs a teacher"),
        ({"accumulate": 3}, "multiple of 3"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(
    plain: Experiment, teacher: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    if change.get("teacher") == "T":
        change["teacher"] = str(teacher)
    with pytest.raises(UserError, match=message):
        train(replace(plain, **change), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_classes_is_refused(plain: Experiment, tmp_path: Path) -> None:
    interop.save(detectors.build("gfl-mini-w8", ("cat", "dog")), tmp_path / "t.safetensors")
    with pytest.raises(UserError, match=r"other classes than the data.*cat, dog"):
        train(distilled(plain, tmp_path / "t.safetensors"), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_named(plain: Experiment, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'abacus' is not available"):
        train(plain, tmp_path / "run", device="abacus")


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_named(
    plain: Experiment, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        train(plain, tmp_path / place)


def test_a_folder_of_something_else_is_never_touched(plain: Experiment, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    for choice in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(UserError, match="not a run folder"):
            train(plain, tmp_path, **choice)
    assert (tmp_path / "thesis.tex").read_text() == "important"


def test_resume_and_overwrite_exclude_each_other(plain: Experiment, teacher: Path) -> None:
    with pytest.raises(UserError, match="exclude each other"):
        train(plain, teacher, resume=True, overwrite=True)


def test_a_student_can_start_from_a_checkpoint(plain: Experiment, teacher: Path) -> None:
    assembly = loop.build(replace(plain, student=str(teacher)))
    expected = weights(teacher)
    assert all(torch.equal(expected[k], v) for k, v in assembly.student.state_dict().items())
    assert str(teacher) in assembly.origin


def test_only_the_form_of_a_teacher_that_runs_stays_in_memory(
    plain: Experiment, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = [], interop.load

    def remembered(path: Path | str) -> Detector:
        detector = load(path)
        loaded.append(weakref.ref(detector.backbone))
        return detector

    monkeypatch.setattr(interop, "load", remembered)
    taught = distilled(plain, teacher)
    assemblies = [loop.build(replace(taught, fold_teacher=fold)) for fold in (True, False)]
    gc.collect()
    assert [backbone() is not None for backbone in loaded] == [False, True]
    said = read_json(RunFolder(teacher).student.with_suffix(".json"))
    for assembly in assemblies:
        assert assembly.teacher
        assert assembly.teacher_fingerprint == said["fingerprint"]
        assert assembly.teacher.parameters == sum(p.numel() for p in load(teacher).parameters())


def test_a_run_that_breaks_names_the_loss_and_leaves_the_last_good_checkpoint(
    plain: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = TrainStep.forward

    def broken(self: TrainStep, batch: Any, index: int = 0, *more: Any) -> Any:
        losses = forward(self, batch, index, *more)
        return losses | {"task/dfl": losses["task/dfl"] * (math.nan if index == 4 else 1)}

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "forward", broken)
        with pytest.raises(NonFiniteError, match="At step 5 the loss task/dfl is nan"):
            train(plain, tmp_path / "run", device="cpu")
    assert read_json(tmp_path / "run" / "status.json")["state"] == "failed"
    good = load_file(tmp_path / "run" / "checkpoints" / "last" / "student.safetensors")
    assert all(value.isfinite().all() for value in good.values())
    assert train(plain, tmp_path / "run", resume=True, device="cpu")["step"] == 6


def test_a_loss_that_does_not_reach_the_student_is_named_before_the_first_step() -> None:
    methods = {"mistake": Detached(), "pull": Pull(), "idle": Pull(weight=0.0)}
    step = TrainStep(FakeDetector(), FakeDetector(), methods)
    found = reach.arrivals(step, batch(), reach.is_distillation)
    assert list(found) == ["mistake/neck", "pull/neck", "idle/neck"]
    assert "mistake/neck does not reach the student" in (reach.complaint(found) or "")
    assert reach.idle(found) == ["idle/neck"]


def test_looking_at_the_losses_leaves_the_step_as_it_was() -> None:
    step = TrainStep(FakeDetector(), FakeDetector(), {"pull": Pull()}).train()
    before = {name: value.clone() for name, value in step.state_dict().items()}
    found = reach.arrivals(step, batch())
    assert all(arrival.gradient for arrival in found.values())
    assert all(torch.equal(before[name], value) for name, value in step.state_dict().items())
    assert all(parameter.grad is None for parameter in step.parameters())


def test_students_are_kept_on_the_way_and_nothing_else_changes(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    experiment = replace(plain, keep_every=4)
    train(experiment, tmp_path, device="cpu")
    assert same_weights(tmp_path, teacher)
    kept = {step: interop.load(file) for step, file in RunFolder(tmp_path).snapshots().items()}
    assert list(kept) == [0, 4, 6]
    first = loop.build(experiment).student
    found = [interop.fingerprint(detector) for detector in (first, *kept.values())]
    assert found[0] == found[1]
    assert found[3] == interop.fingerprint(interop.load(teacher))
    assert len(set(found)) == 3


def test_tensorboard_gets_events(plain: Experiment, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(replace(plain, tensorboard=True, steps=2), tmp_path, device="cpu")
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_missing_tensorboard_is_said_at_once(
    plain: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install '.\[tensorboard\]'"):
        train(replace(plain, tensorboard=True), tmp_path / "run", device="cpu")


def test_the_experiment_file_is_plain_yaml(teacher: Path) -> None:
    content = yaml.safe_load((teacher / "experiment.yaml").read_text())
    assert content["optimizer"]["betas"] == [0.9, 0.999]
