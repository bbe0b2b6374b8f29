"""What figures are made of: pictures that a rule picks, steps, trained methods."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tests.explain.conftest import METHODS, Runs
from tests.report import made_up

from detdistill.explain import roles
from detdistill.explain.figure import NotThere
from detdistill.explain.subject import Subject
from detdistill.files import read_json
from detdistill.structures import Reads


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
        with pytest.raises(NotThere, match="trained without"):
            getattr(only, part)
    with pytest.raises(NotThere, match="--alone"):
        _ = Subject(roles.assign([runs.distilled])).alone


def test_the_layers_of_methods_are_those_that_the_training_left(runs: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(runs.distilled, tmp_path / "run")
    content = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
    made_up.write(run / "experiment.yaml", yaml.safe_dump({**content, "methods": {"mgd": {}}}))
    fresh = Subject(roles.assign([run])).training("mgd").state_dict()
    learned = {name: value + 1 for name, value in fresh.items() if name.startswith("methods.")}
    assert learned
    (run / "checkpoints" / "last").mkdir(parents=True)
    state = {"trainer": {"step": {**fresh, **learned}}}
    torch.save(state, run / "checkpoints" / "last" / "state.pt")
    found = Subject(roles.assign([run])).training("mgd").state_dict()
    assert all(torch.equal(found[name], value) for name, value in learned.items())
