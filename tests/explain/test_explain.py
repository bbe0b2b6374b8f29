"""Asking for figures: who plays which part, what is kept, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.terminal import detdistill as detdistill_command
from tests.explain.conftest import Runs, save_detector
from tests.report import made_up

import detdistill
from detdistill.errors import UserError
from detdistill.explain import roles
from detdistill.explain.make import make
from detdistill.report.index import FORMATS, WORDS, index


def test_parts_are_found_among_the_runs(runs: Runs) -> None:
    found = roles.assign([runs.alone, runs.distilled])
    assert list(found.parts) == ["teacher", "student alone", "crosskd+pkd"]
    assert found.run.folder == runs.distilled


def test_a_folder_that_holds_the_runs_will_do(runs: Runs) -> None:
    found = roles.assign([runs.distilled.parent])
    assert list(found.parts) == ["teacher", "student alone", "crosskd+pkd"]


def test_the_student_alone_can_be_named(runs: Runs) -> None:
    assert list(roles.assign([runs.distilled]).parts) == ["teacher", "crosskd+pkd"]
    named = roles.assign([runs.distilled], alone=runs.alone)
    assert named.parts["student alone"].checkpoint == runs.alone


def test_runs_with_the_same_methods_are_told_apart(runs: Runs, tmp_path: Path) -> None:
    copies = [shutil.copytree(runs.distilled, tmp_path / name / "s0") for name in "ab"]
    found = roles.assign(copies)
    assert list(found.parts) == ["teacher", "crosskd+pkd (a/s0)", "crosskd+pkd (b/s0)"]


def test_a_teacher_is_found_from_another_folder(runs: Runs, tmp_path: Path) -> None:
    run = _copied(runs, tmp_path, teacher="runs/teacher")
    shutil.copytree(runs.teacher, tmp_path / "runs" / "teacher")
    assert "teacher" in roles.assign([run]).parts


def test_a_teacher_that_has_changed_is_no_teacher(runs: Runs, tmp_path: Path) -> None:
    teacher = shutil.copytree(runs.teacher, tmp_path / "teacher")
    save_detector(teacher, "gfl-quick-w8")
    run = _copied(runs, tmp_path, teacher=str(teacher))
    found = roles.assign([run])
    assert "teacher" not in found.parts
    assert "has changed" in found.no_teacher


def test_without_its_teacher_a_run_still_has_the_other_figures(runs: Runs, tmp_path: Path) -> None:
    run = _copied(runs, tmp_path, teacher="gone")
    made = make([run, runs.alone], only=["pictures"], images=1)
    assert {entry["figure"] for entry in made.figures} == {"pictures"}
    assert made.folder == run / "figures"


def test_what_was_not_asked_for_stays(runs: Runs, tmp_path: Path) -> None:
    other = {"figure": "other", **dict.fromkeys(WORDS, "other")}
    other |= {form: f"other.{form}" for form in FORMATS}
    stale = {**other, "figure": "pictures", "png": "stale.png"}
    made_up.write(tmp_path / "index.json", json.dumps([other, stale]))
    made_up.write(tmp_path / "other.png", "")
    made_up.write(tmp_path / "stale.png", "")
    make([runs.distilled], only=["pictures"], images=1, out=tmp_path)
    index = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    assert [entry["figure"] for entry in index] == ["other", "pictures"]
    assert (tmp_path / "other.png").exists()
    assert not (tmp_path / "stale.png").exists()


def test_the_same_runs_give_the_same_files(runs: Runs, tmp_path: Path) -> None:
    for name in "ab":
        make([runs.distilled], only=["pictures"], images=1, out=tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_an_unknown_figure_is_answered_with_the_nearest(runs: Runs) -> None:
    with pytest.raises(UserError, match="Did you mean 'pictures'"):
        make([runs.distilled], only=["picture"])


def test_what_was_drawn_before_a_failure_is_in_the_index(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise UserError("The disk is full.")

    monkeypatch.setattr("detdistill.explain.scores.figures", fail)
    with pytest.raises(UserError, match="full"):
        make([runs.distilled], only=["pictures", "scores"], images=1, out=tmp_path)
    assert [entry["figure"] for entry in index(tmp_path)] == ["pictures"]


def test_a_broken_index_is_refused_before_any_work(runs: Runs, tmp_path: Path) -> None:
    made_up.write(tmp_path / "index.json", "{}")
    with pytest.raises(UserError, match="not an index of figures: remove it"):
        make([runs.distilled], only=["pictures"], images=1, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["index.json"]


def test_without_its_library_there_is_no_figure_of_tide(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detdistill.evaluate.coco.find_spec", lambda _: None)
    made = make([runs.alone], only=["tide"], out=tmp_path)
    assert "pip install hotcoco" in made.missing["tide"]


def test_what_is_not_the_student_alone_is_refused(runs: Runs) -> None:
    with pytest.raises(UserError, match=r"it learned by crosskd\+pkd"):
        roles.assign([runs.distilled], alone=runs.distilled)
    with pytest.raises(UserError, match="gfl-quick-w16 on all images of shapes"):
        roles.assign([runs.distilled], alone=runs.teacher)


def test_a_rival_that_is_not_there_is_refused(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint at .*gone"):
        roles.assign([runs.distilled], rivals=[tmp_path / "gone"])


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = made_up.run(tmp_path / "run", ap=None)
    with pytest.raises(UserError, match=r"has not finished \(interrupted, step 600 of 600\)"):
        make([run])


def test_runs_that_saw_other_test_pictures_are_refused(runs: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(runs.alone, tmp_path / "run")
    content = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    made_up.write(run / "evaluation.json", json.dumps({**content, "images": 3}))
    with pytest.raises(UserError, match="3 test images of shapes"):
        make([runs.distilled], alone=run)


def test_no_picture_at_all_is_refused(runs: Runs) -> None:
    with pytest.raises(UserError, match="images is 0"):
        make([runs.distilled], images=0)


def test_the_verb_returns_what_was_made(runs: Runs, tmp_path: Path) -> None:
    found = detdistill.explain(
        [str(runs.distilled)], only=["pictures"], images=1, out=str(tmp_path)
    )
    assert found["folder"] == str(tmp_path)
    assert [entry["name"] for entry in found["figures"]] == ["pictures"]
    assert found["missing"] == {}


def test_the_command_says_what_there_is_and_what_is_not(runs: Runs, tmp_path: Path) -> None:
    done = detdistill_command(
        "explain", runs.alone, "--only", "pictures", "approach", "--out", tmp_path
    )
    assert done.code == 0, done.err
    assert "pictures  What the detector finds" in done.out
    assert done.err.startswith("no approach: ")


def _copied(runs: Runs, root: Path, *, teacher: str) -> Path:
    """The distilled run with another path to its teacher."""
    run = shutil.copytree(runs.distilled, root / "runs" / "distilled")
    text = (run / "experiment.yaml").read_text(encoding="utf-8")
    made_up.write(run / "experiment.yaml", text.replace(str(runs.teacher), teacher))
    return run
