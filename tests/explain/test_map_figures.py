"""Figures of feature maps, predictions and gradients, on made-up runs of every family."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.explain.conftest import save_detector, save_training
from tests.report import made_up

from detdistill import explain
from detdistill.explain import channels, conflict, roles
from detdistill.explain.figure import Figure, FigureUnavailableError
from detdistill.explain.subject import Subject

Make = Callable[..., Subject]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    for figure in (channels, conflict):
        monkeypatch.setattr(figure, "_PICTURES", 2)

    def made(
        family: str = "gfl",
        methods: Mapping[str, Any] | None = None,
        *,
        teacher: str = "w16",
        rivals: tuple[Path, ...] = (),
    ) -> Subject:
        """A pair of untrained detectors and one picture."""
        place = made_up.run(tmp_path / "teacher", student=f"{family}-quick-{teacher}")
        fingerprint = save_detector(place, f"{family}-quick-{teacher}")
        alone = made_up.run(tmp_path / "alone", student=f"{family}-quick-w8")
        save_detector(alone, f"{family}-quick-w8")
        distilled = made_up.run(
            tmp_path / "distilled",
            student=f"{family}-quick-w8",
            methods=dict(methods or {"pkd": {}}),
            teacher=place,
        )
        save_detector(distilled, f"{family}-quick-w8", teacher=fingerprint)
        subject = Subject(roles.assign([distilled, alone], rivals=rivals), images=1)
        save_training(subject)
        return subject

    return made


def of(name: str, subject: Subject) -> list[Figure]:
    return list(explain.find(name)(subject))


def columns(figure: Figure) -> set[str]:
    """The maps of a sheet."""
    return set(figure.rows[0]) - {"image", "level", "row", "column"}


def test_methods_show_where_they_look(make: Make) -> None:
    (figure,) = of("maps", make(methods={"fgfi": {}}))
    assert columns(figure) == {"near"}
    assert figure.tab.startswith("picture ")
    assert figure.draw().axes


def test_what_depends_on_the_student_is_shown_for_each(make: Make) -> None:
    subject = make(methods={"tid": {}, "fgfi": {}})
    with torch.no_grad():
        for weight in subject.detector("student alone").parameters():
            weight.mul_(1.5)
    (figure,) = of("maps", subject)
    assert {"fgfi: near", "tid: key", "tid: near"} <= columns(figure)
    score = "tid: the student's score"
    assert {f"{score}, student alone", f"{score}, tid+fgfi"} <= columns(figure)


def test_without_such_methods_there_is_nothing_to_show(make: Make) -> None:
    with pytest.raises(FigureUnavailableError, match="gradients"):
        of("maps", make())


def test_crossed_losses_do_not_pull_at_the_end_of_the_students_towers(make: Make) -> None:
    found = {figure.name: figure for figure in of("gradients", make(methods={"crosskd": {}}))}
    neck, cls, box = (
        next(figure for name, figure in found.items() if place in name)
        for place in ("neck", "class-tower", "box-tower")
    )
    assert {"labels: cls", "labels: box", "crosskd/cls", "crosskd/box"} <= columns(neck)
    assert columns(cls) == {"labels: cls"}
    assert columns(box) == {"labels: box", "labels: dfl"}
    assert "Not pulling here: labels: box, labels: dfl, crosskd/cls, crosskd/box." in cls.caption


def test_a_place_that_no_loss_reaches_has_no_figure(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "detdistill.explain.gradients.gradient_maps",
        lambda _, features: tuple(torch.zeros_like(level[:, 0]) for level in features),
    )
    assert of("gradients", make()) == []


def test_losses_of_several_levels_are_one(make: Make) -> None:
    neck = of("gradients", make())[0]
    assert "pkd" in columns(neck)
    assert not any("level" in name for name in columns(neck))


def test_a_student_that_is_its_teacher_is_nowhere_apart(make: Make) -> None:
    subject = make(teacher="w8")
    errors = next(figure for figure in of("scores", subject) if "errors" in figure.name)
    assert {row["pkd"] for row in errors.rows} == {0.0}
    for figure in of("channels", subject):
        assert {row["objects"] for row in figure.rows} == {0.0}
        assert {row["background"] for row in figure.rows} == {0.0}


def test_every_channel_of_every_level_is_compared(make: Make) -> None:
    subject = make()
    spec = subject.detector("teacher").spec
    figures = of("channels", subject)
    assert len(figures) == len(spec.strides)
    for figure in figures:
        assert len(figure.rows) == spec.channels * len(subject.students)
        assert all(row["objects"] > 0 and row["background"] > 0 for row in figure.rows)


def test_crossed_scores_are_shown_of_those_who_learned_by_them(make: Make) -> None:
    (figure,) = of("crossed", make(methods={"crosskd": {}}))
    assert columns(figure) == {
        "labels",
        "teacher",
        "their difference",
        "student alone",
        "crosskd",
        "crosskd, crossed",
    }


def test_fewer_cells_are_in_conflict_the_larger_it_is(make: Make) -> None:
    (figure,) = of("conflict", make())
    shares = [row["share"] for row in figure.rows]
    assert shares == sorted(shares, reverse=True)


def test_rivals_are_compared_if_they_speak_of_the_same_cells(make: Make, tmp_path: Path) -> None:
    rivals = (tmp_path / "twin", tmp_path / "other")
    for place, name in zip(rivals, ("gfl-quick-w16", "faster_rcnn-quick-w8"), strict=True):
        made_up.run(place, student=name)
        save_detector(place, name)
    (figure,) = of("conflict", make(rivals=rivals))
    shares = {
        teacher: [row["share"] for row in figure.rows if row["teacher"] == teacher]
        for teacher in {row["teacher"] for row in figure.rows}
    }
    assert set(shares) == {"teacher", "teacher 2: gfl-quick-w16"}
    assert shares["teacher"] == shares["teacher 2: gfl-quick-w16"], "the same weights"
    assert "Left out is teacher 3: faster_rcnn-quick-w8: " in figure.caption


def test_losses_of_objects_and_background_are_drawn_apart(make: Make) -> None:
    subject = make(methods={"defeat": {"object_weight": 4.0, "background_weight": 16.0}})
    lines = [
        {"step": s, "kind": "train", "distill": {"defeat/object": 8 / s, "defeat/background": s}}
        for s in (1, 2)
    ]
    subject.run.log[:] = lines
    (figure,) = of("decoupled", subject)
    assert [(row["term"], row["weight"], row["step"], row["loss"]) for row in figure.rows] == [
        ("object", 4.0, 1, 8.0),
        ("object", 4.0, 2, 4.0),
        ("background", 16.0, 1, 1),
        ("background", 16.0, 2, 2),
    ]
    assert len(figure.draw().axes[0].lines) == 2


def test_methods_with_one_loss_for_all_cells_have_no_such_figure(make: Make) -> None:
    with pytest.raises(FigureUnavailableError, match="background"):
        of("decoupled", make())


@pytest.mark.parametrize("name", ["scores", "crossed", "conflict", "channels", "gradients"])
def test_two_stage_detectors_have_the_figures_of_their_first_stage(name: str, make: Make) -> None:
    assert of(name, make("faster_rcnn", {"defeat": {}, "crosskd": {}}))


@pytest.mark.parametrize("name", ["channels", "gradients"])
def test_query_detectors_have_the_figures_of_their_neck(name: str, make: Make) -> None:
    assert of(name, make("deformable_detr"))


@pytest.mark.parametrize("name", ["scores", "crossed", "conflict"])
def test_query_detectors_have_no_scores_in_cells(name: str, make: Make) -> None:
    with pytest.raises(FigureUnavailableError, match="queries"):
        of(name, make("deformable_detr"))


def test_file_names_have_no_slashes(make: Make) -> None:
    subject = make()
    subject.parts = {  # as labels are where several runs have the same methods
        "pkd (a/s0)" if label == "pkd" else label: part for label, part in subject.parts.items()
    }
    names = [figure.name for figure in of("gradients", subject)]
    assert names
    assert not any("/" in name for name in names)
