"""A paper's numbers beside measured ones."""

from pathlib import Path

import made_up
import pytest

from detdistill.errors import UserError
from detdistill.report import published, table
from detdistill.report.arms import Comparison, compare
from detdistill.report.numbers import NOTHING
from detdistill.report.runs import find_runs


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    (found,) = compare(find_runs([made_up.demo(tmp_path / "demo")]))
    return found


def test_published_numbers_stand_in_their_own_column_only(comparison: Comparison) -> None:
    plain, _ = table.tables([comparison])
    beside, _ = table.tables([comparison], published.read("crosskd:table5"))
    assert beside.groups[:-1] == plain.groups
    assert [column.name for column in beside.groups[-1].columns] == ["crosskd:table5"]
    assert "is from a paper" in beside.caption
    for with_paper, without in zip(beside.bodies[0].rows, plain.bodies[0].rows, strict=True):
        assert with_paper.cells[:-1] == without.cells
    cells = {row.label: row.cells[-1].text for row in beside.bodies[0].rows}
    assert cells["Student alone"] == "40.2 (gfl-r50)"
    assert cells["Teacher"] == cells["Student alone (equal compute)"] == NOTHING


def test_rows_of_a_paper_are_found_by_family_and_methods(tmp_path: Path) -> None:
    made_up.run(tmp_path / "pkd", methods={"pkd": {"weight": 6.0}})
    made_up.run(tmp_path / "other", methods={"pkd": {"weight": 5.0}})
    made_up.run(tmp_path / "fcos", methods={"pkd": {}}, student="fcos-mini-w8")
    arms = [arm for found in compare(find_runs([tmp_path])) for arm in found.arms]
    paper = published.read("crosskd:table5")
    cells = {arm.first.name: paper.cell(arm) for arm in arms}
    assert cells == {"pkd": "43.3 (gfl-r50 from gfl-r101)", "other": None, "fcos": None}


def test_the_note_says_what_was_not_measured(comparison: Comparison) -> None:
    (*_, note) = table.notes([comparison], published.read("crosskd:table5"))
    assert "not measured here" in note
    assert "gfl-r50 with fgd" in note
    assert "gfl-r50 alone" not in note


def test_an_unknown_table_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'crosskd:table5'"):
        published.read("croskd:table5")
