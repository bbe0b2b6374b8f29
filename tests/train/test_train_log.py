import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from detdistill.train.clock import Clock
from detdistill.train.folder import RunFolder
from detdistill.train.log import Journal, short_line, training_line

ENTRY: dict[str, Any] = {
    "step": 120,
    "kind": "train",
    "lr": 0.0119,
    "step_ms": 250.0,
    "task": {"cls": 0.5, "box": 0.25},
    "distill": {"pkd/level0": 1.0, "pkd/level1": 2.0, "tid/level0": 0.5},
}


def test_a_line_has_every_loss_and_the_time_that_is_left() -> None:
    assert training_line(ENTRY, 600) == (
        "step 120/600  total 4.25  cls 0.5  box 0.25  pkd/level0 1  pkd/level1 2  tid/level0 0.5"
        "  lr 0.0119  250 ms/step  2:00 left"
    )


def test_the_bar_has_one_number_for_the_task_and_one_for_each_method() -> None:
    assert short_line(ENTRY) == "task 0.75  pkd 3  tid 0.5  lr 0.012  250 ms/step"


def test_without_a_terminal_about_twenty_lines_are_said_and_all_are_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path)
    with Journal(folder, start=0, steps=1000) as journal:
        for step in range(10, 1001, 10):
            journal.record({**ENTRY, "step": step})
    assert len(capsys.readouterr().err.splitlines()) == 20
    assert len(folder.log.read_text().splitlines()) == 100
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [
        *range(10, 1001, 10)
    ]


def test_other_ranks_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(RunFolder(tmp_path), start=0, steps=10, enabled=False) as journal:
        journal.say("hello")
        journal.record(ENTRY)
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().err


def test_a_run_goes_on_when_nobody_listens_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    with Journal(RunFolder(tmp_path), start=0, steps=10) as journal:
        journal.say("hello")
    assert "hello" in RunFolder(tmp_path).log.read_text()


def test_metrics_after_a_step_are_forgotten_and_so_is_half_a_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    whole = [json.dumps({"step": step}) + "\n" for step in (2, 4, 6)]
    folder.metrics.write_text("".join(whole) + '{"step": 3')
    folder.truncate_metrics(4)
    assert folder.metrics.read_text() == "".join(whole[:2])


def test_the_clock_counts_only_while_it_runs() -> None:
    clock = Clock(seconds=10.0, cpu_seconds=5.0)
    time.sleep(0.02)
    assert clock.seconds == 10.0
    with clock.running():
        time.sleep(0.02)
    stopped = clock.seconds
    assert 10.02 <= stopped < 11
    time.sleep(0.02)
    assert clock.seconds == stopped
    assert clock.lap_ms(2) == pytest.approx(500 * (stopped - 10.0))
    assert clock.lap_ms(2) == 0
    assert clock.cpu_seconds < 6


def test_a_lap_goes_on_after_a_stop() -> None:
    stopped = Clock(seconds=10.0, lap=3.0)
    again = Clock(stopped.seconds, stopped.cpu_seconds, stopped.lap)
    assert again.lap_ms(3) == pytest.approx(1000)
