"""Teachers that are given as a weights file."""

import json
from pathlib import Path

import made_up
import pytest

from detdistill.report import table
from detdistill.report.build import Page, read
from detdistill.report.checkpoints import evaluation_file


def runs(root: Path, teacher: Path) -> Path:
    made_up.run(root / "alone", ap=0.3)
    made_up.run(root / "pkd", ap=0.4, methods={"pkd": {}}, teacher=teacher, skill=0.8)
    return root


def evaluated(file: Path, fingerprint: str) -> None:
    found = made_up.evaluation(0.7, 0, 0, {"student": "gfl-mini-w32", "data": "shapes"})
    made_up.write(file, json.dumps({**found, "fingerprint": fingerprint}))


def teacher_row(page: Page) -> list[str]:
    row, *_ = page.tables[0].bodies[0].rows
    assert row.teacher
    return [row.detail, row.cells[0].text]


def test_a_teacher_of_which_nothing_is_known_has_a_row(tmp_path: Path) -> None:
    teacher = made_up.checkpoint(tmp_path / "zoo" / "big.safetensors")

    page = read([runs(tmp_path / "runs", teacher)], resamples=0)

    assert teacher_row(page) == ["gfl on resnet50", "not measured"]
    assert any("was not measured" in warning for warning in page.warnings)
    assert page.headlines[0].text == "With pkd, the student gained 10.0 AP from its teacher."
    assert all(recipe.folder != str(teacher) for recipe in page.recipes)


@pytest.mark.parametrize("beside", [True, False])
def test_what_it_reaches_is_found_beside_it_or_beside_the_runs(
    tmp_path: Path, beside: bool
) -> None:
    teacher = made_up.checkpoint(tmp_path / "zoo" / "big.safetensors")
    root = runs(tmp_path / "runs", teacher)
    file = teacher.with_suffix(".evaluation.json") if beside else evaluation_file(teacher, root)
    evaluated(file, "f1")

    page = read([root], resamples=0)

    assert teacher_row(page) == ["gfl on resnet50", "70.0"]
    assert "25\u00a0% of the gap closed" in page.headlines[0].text
    assert page.tables[1].bodies[0].rows[0].cells[0].text == "785\u00a0k"
    assert page.gallery is not None
    assert [panel.name for panel in page.gallery.rows[0].panels][1:] == ["Student alone", "pkd"]


def test_an_evaluation_of_other_weights_does_not_count(tmp_path: Path) -> None:
    teacher = made_up.checkpoint(tmp_path / "zoo" / "big.safetensors", fingerprint="new")
    root = runs(tmp_path / "runs", teacher)
    evaluated(evaluation_file(teacher, root), "old")

    assert teacher_row(read([root], resamples=0))[1] == "not measured"


def test_teachers_of_one_name_have_an_evaluation_each(tmp_path: Path) -> None:
    teachers = [
        made_up.checkpoint(
            tmp_path / folder / "best.safetensors", fingerprint=2 * f"{folder}1234567"
        )
        for folder in ("a", "b")
    ]

    files = [evaluation_file(teacher, tmp_path).name for teacher in teachers]

    assert files == [f"teacher-best-{mark}1234567.evaluation.json" for mark in "ab"]


def test_multiply_adds_that_count_once_are_said_to(tmp_path: Path) -> None:
    run = made_up.run(tmp_path / "one")
    found = json.loads((run / "evaluation.json").read_text())
    found["facts"]["flops_per_multiply_add"] = 1
    made_up.write(run / "evaluation.json", json.dumps(found))

    notes = table.notes(read([run], resamples=0).comparisons)

    assert any("a multiply-add counts as one" in note for note in notes)
