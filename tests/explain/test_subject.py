"""What figures are made of: pictures that a rule picks, steps, trained methods."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tests.explain.conftest import METHODS, Runs
from tests.report import made_up

from detdistill import data, detectors
from detdistill.data import shapes
from detdistill.data.folder import PictureFolder
from detdistill.data.scenes import CLASSES
from detdistill.errors import UserError
from detdistill.explain import approach, roles, scores
from detdistill.explain.figure import FigureUnavailableError
from detdistill.explain.subject import Subject
from detdistill.files import read_json
from detdistill.interop import checkpoint
from detdistill.structures import Reads
from detdistill.train.folder import RunFolder


@pytest.fixture(scope="module")
def subject(runs: Runs) -> Subject:
    return Subject(roles.assign([runs.distilled, runs.alone]), images=2)


def test_labels_name_the_parts(subject: Subject) -> None:
    assert subject.labels == ("teacher", "student alone", "crosskd+pkd")
    assert subject.students == ("student alone", "crosskd+pkd")
    assert subject.distilled == ("crosskd+pkd",)


def test_a_view_has_what_is_read_and_gradients_to_the_students_neck(subject: Subject) -> None:
    views = list(subject.views("student alone", Reads(towers=frozenset({1}))))
    assert [view.position for view in views] == subject.shown
    assert len(views) == 2
    assert views[0].step.teacher.towers.cls[1]
    loss = torch.stack(list(views[0].losses.values())).sum()
    gradients = torch.autograd.grad(loss, views[0].step.student.neck)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert not any(level.requires_grad for level in views[0].step.teacher.neck)


def test_methods_can_be_asked_about_a_view(subject: Subject) -> None:
    methods = subject.methods("crosskd+pkd")
    assert set(methods) == set(METHODS)
    view = next(subject.views("crosskd+pkd", subject.reads("crosskd+pkd")))
    for method in methods.values():
        assert all(loss.isfinite() for loss in method(view.step).values())


def test_detections_are_read_where_a_run_has_them(subject: Subject, runs: Runs) -> None:
    assert subject.detections("student alone") == read_json(runs.alone / "detections.json")


def test_detections_on_another_split_are_made(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "detdistill.explain.subject.predict", lambda _, dataset: asked.append(dataset) or []
    )
    other = Subject(roles.assign([runs.distilled]), split="tune")
    assert other.detections("teacher") == []
    assert asked == [other.dataset]


def test_parts_that_nobody_plays_are_not_there(runs: Runs) -> None:
    only = Subject(roles.assign([runs.alone]))
    for part in ("teacher", "distilled"):
        with pytest.raises(FigureUnavailableError, match="trained without"):
            getattr(only, part)
    with pytest.raises(FigureUnavailableError, match="--alone"):
        _ = Subject(roles.assign([runs.distilled])).alone


def test_the_layers_of_methods_are_those_that_the_training_left(runs: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(runs.distilled, tmp_path / "run")
    content = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
    made_up.write(run / "experiment.yaml", yaml.safe_dump({**content, "methods": {"mgd": {}}}))
    subject = Subject(roles.assign([run]))
    fresh = subject.train_step("mgd").state_dict()
    with pytest.raises(FigureUnavailableError, match=r"there is no .*last"):
        subject.methods("mgd")
    learned = {name: value + 1 for name, value in fresh.items() if name.startswith("methods.")}
    assert learned
    (run / "checkpoints" / "last").mkdir(parents=True)
    state = {"trainer": {"step": {**fresh, **learned}}}
    torch.save(state, run / "checkpoints" / "last" / "state.pt")
    found = Subject(roles.assign([run])).training("mgd").state_dict()
    assert all(torch.equal(found[name], value) for name, value in learned.items())


def changed(folder: Path, place: Path, **settings: object) -> Path:
    """A copy of a run that was trained with other settings."""
    run = shutil.copytree(folder, place)
    content = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
    made_up.write(run / "experiment.yaml", yaml.safe_dump({**content, **settings}))
    return run


def with_a_teacher_of(classes: list[str], runs: Runs, folder: Path, **settings: object) -> Path:
    """A copy of the distilled run that learned from a teacher of these classes."""
    torch.manual_seed(1)
    teacher = detectors.build("gfl-quick-w16", classes)
    file = folder / "other.safetensors"
    checkpoint.save(teacher, file, {})
    run = changed(runs.distilled, folder / "run", teacher=str(file), **settings)
    card = {"teacher": checkpoint.fingerprint(teacher)}
    checkpoint.save(checkpoint.load(run), RunFolder(run).student, card)
    return run


def test_a_view_has_the_classes_that_both_know(runs: Runs, tmp_path: Path) -> None:
    first, second, *_ = CLASSES
    run = with_a_teacher_of(["thing", second], runs, tmp_path, class_map={"thing": first})
    subject = Subject(roles.assign([run, runs.alone]), images=1)
    for student in subject.students:
        step = next(subject.views(student)).step
        levels = zip(step.student.dense.logits, step.teacher.dense.logits, strict=True)
        assert {level.shape[1] for pair in levels for level in pair} == {2}
    batch = subject.batch(subject.shown[0])
    raw = subject.detector("teacher")(batch.images, batch.truth.sizes).dense.logits
    torch.testing.assert_close(step.teacher.dense.logits, raw)
    assert list(scores.figures(subject))


def test_a_teacher_of_other_classes_has_no_detections_and_no_course(
    runs: Runs, tmp_path: Path
) -> None:
    run = with_a_teacher_of([*CLASSES[:2], "other"], runs, tmp_path)
    subject = Subject(roles.assign([run]), images=1)
    with pytest.raises(FigureUnavailableError, match=r"teacher cannot be asked.*does not know"):
        subject.detections("teacher")
    with pytest.raises(FigureUnavailableError, match="class by class"):
        list(approach.figures(subject))


def test_a_view_has_the_teacher_at_its_own_scale(runs: Runs, tmp_path: Path) -> None:
    run = changed(runs.distilled, tmp_path / "run", teacher_scale=2.0, methods={"pkd": {}})
    subject = Subject(roles.assign([run]), images=1)
    step = next(subject.views("pkd")).step
    sizes = [level.shape[-2:] for level in step.student.neck]
    assert [level.shape[-2:] for level in step.teacher.neck] == sizes
    seen = next(Subject(roles.assign([runs.distilled]), images=1).views("crosskd+pkd")).step
    assert not torch.equal(step.teacher.neck[0], seen.teacher.neck[0])
    with pytest.raises(FigureUnavailableError, match="another scale"):
        list(approach.figures(subject))
    with pytest.raises(FigureUnavailableError, match="2 times as large"):
        list(scores.figures(subject))


def test_pictures_are_as_large_as_in_the_training(runs: Runs, tmp_path: Path) -> None:
    run = changed(runs.distilled, tmp_path / "run", letterbox=160)
    for split in ("test", "tune"):
        dataset = Subject(roles.assign([run]), split=split).dataset
        assert dataset[0].canvas == 160
        assert max(dataset[0].size) == 160


def test_damaged_pictures_do_not_shift_the_tested_ones(runs: Runs, tmp_path: Path) -> None:
    shapes.write(tmp_path / "made", "tiny", layout="coco", train=1, tune=2, test=4)
    name = f"coco:{tmp_path / 'made'}"
    whole = data.open(name, "test")
    assert isinstance(whole, PictureFolder)
    whole.file(0).write_bytes(b"")
    run = changed(runs.alone, tmp_path / "run", data=name, skippable=0.5)
    content = read_json(run / "evaluation.json")
    made_up.write(run / "evaluation.json", json.dumps({**content, "data": name, "images": 3}))
    subject = Subject(roles.assign([run]))
    assert [image["id"] for image in subject.truth["images"]] == [
        image["id"] for image in whole.ground_truth()["images"][1:]
    ]


def test_detections_of_unknown_classes_are_the_users_mistake(runs: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(runs.alone, tmp_path / "run")
    found = read_json(run / "detections.json")
    made_up.write(run / "detections.json", json.dumps([{**found[0], "category_id": 99}]))
    with pytest.raises(UserError, match="know classes"):
        _ = Subject(roles.assign([run])).picks
