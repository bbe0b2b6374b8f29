from pathlib import Path

import made_up
import pytest

from detdistill.errors import UserError
from detdistill.report.runs import find_runs, read_run


def test_a_parent_folder_stands_for_the_runs_in_it(tmp_path: Path) -> None:
    root = made_up.demo(tmp_path / "demo")

    names = [run.name for run in find_runs([root])]

    assert sorted(names) == ["crosskd+pkd", "student", "student-equal-compute", "teacher", "tid"]


def test_a_run_named_twice_is_read_once(tmp_path: Path) -> None:
    run = made_up.run(tmp_path / "runs" / "one")

    assert len(find_runs([run, tmp_path / "runs", run])) == 1


def test_a_missing_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        find_runs([tmp_path / "nowhere"])


def test_a_folder_without_runs_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder and holds none"):
        find_runs([tmp_path])


def test_no_folder_at_all_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="name at least one"):
        find_runs([])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("experiment.yaml", "student: [unclosed"),
        ("experiment.yaml", "just words"),
        ("evaluation.json", "{"),
        ("status.json", "[]"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, content: str) -> None:
    run = made_up.run(tmp_path / "run")
    made_up.write(run / file, content)

    with pytest.raises(UserError, match=file):
        read_run(run)


def test_half_a_line_that_a_kill_left_is_passed_over(tmp_path: Path) -> None:
    folder = made_up.run(tmp_path / "run")
    whole = len(read_run(folder).log)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 610, "kind": "tr')

    assert len(read_run(folder).log) == whole > 0


def test_a_run_that_was_interrupted_is_not_finished(tmp_path: Path) -> None:
    assert not read_run(made_up.run(tmp_path / "run", ap=None)).finished


def test_an_evaluation_of_a_run_that_goes_on_does_not_make_it_finished(tmp_path: Path) -> None:
    folder = made_up.run(tmp_path / "run")
    made_up.write(folder / "status.json", '{"state": "running", "step": 1, "steps": 9}')

    assert not read_run(folder).finished


def test_an_undefined_metric_is_none(tmp_path: Path) -> None:
    assert read_run(made_up.run(tmp_path / "run")).metric("APl") is None
