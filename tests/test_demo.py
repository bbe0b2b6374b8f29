"""The demo, with trainings of two steps."""

import json
from pathlib import Path

import pytest

import detdistill
from detdistill import demo
from detdistill.cli import main
from detdistill.compare import Pair, Plan
from detdistill.train.experiment import Experiment, Optimizer

SOURCE = Path(detdistill.__file__).resolve().parents[1]


@pytest.fixture
def _micro_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def training(student: str) -> Experiment:
        optimizer = Optimizer(warmup_steps=1)
        return Experiment(
            data="shapes:tiny", images=16, steps=2, batch_size=4, student=student,
            optimizer=optimizer,
        )  # fmt: skip

    pair = Pair(teacher=training("gfl-mini-w16"), student=training("gfl-mini-w8"))
    budget = Plan(pairs=(pair,), methods=demo.METHODS, seeds=(0,))
    monkeypatch.setitem(demo.BUDGETS, "tiny", budget)
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.usefixtures("_micro_budget")
def test_the_demo_ends_with_a_table_a_summary_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--budget", "tiny", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert "student alone, equal compute" in table
    assert str(out / "report.html") in table
    assert (out / "report.html").stat().st_size > 10_000
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["methods"]) == {"crosskd+pkd", "tid"}
    assert set(summary["methods"]["tid"]) >= {"AP", "AP50", "ARl", "gap_closed"}
    assert 0 <= summary["teacher"]["AP"] <= 1
    assert summary["student_equal_compute"]["step"] >= summary["student"]["step"]

    assert main(["demo", "--budget", "tiny", "--out", str(out)]) == 0
    assert capsys.readouterr().err.count("kept") == 5


def test_every_budget_trains_the_same_student_on_the_same_data_as_its_teacher() -> None:
    for budget in demo.BUDGETS.values():
        (pair,) = budget.pairs
        assert isinstance(pair.teacher, Experiment)
        assert pair.teacher.data == pair.student.data
        assert pair.teacher.steps > pair.student.steps
