"""Several trainings as processes: in order, kept when finished, stopped together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

import detdistill
from detdistill import device, grid, machine, progress
from detdistill.errors import UserError
from detdistill.machine import Machine
from detdistill.train.experiment import Experiment, Optimizer

SOURCE = Path(detdistill.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _children_find_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


def micro(**changes: object) -> Experiment:
    settings: dict[str, object] = {
        "data": "shapes:tiny",
        "images": 16,
        "steps": 2,
        "batch_size": 4,
        "optimizer": Optimizer(warmup_steps=1),
    }
    return Experiment(**{**settings, **changes})  # type: ignore[arg-type]


def teacher_and_student(folder: Path) -> tuple[grid.Job, grid.Job]:
    teacher = grid.Job(name="teacher", experiment=micro(), folder=folder / "teacher")
    pupil = micro(teacher=str(teacher.folder), methods={"pkd": {}})
    student = grid.Job(
        name="student", experiment=pupil, folder=folder / "student", after=("teacher",)
    )
    return teacher, student


def test_a_distilled_run_waits_for_its_teacher_and_both_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, student = teacher_and_student(tmp_path)
    assert grid.run([teacher, student]) == ["teacher", "student"]
    assert progress.read(student.folder).state == "finished"
    assert grid.run([teacher, student]) == []
    assert capsys.readouterr().err.count("kept") == 2


def test_a_folder_with_another_experiment_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "experiment.yaml").write_text(yaml.safe_dump({"steps": 3, "seed": 5}))
    job = grid.Job(name="run", experiment=Experiment(steps=4, seed=5), folder=folder)
    with pytest.raises(UserError, match=r"another experiment .*steps: 3, now 4"):
        grid.run([job])


def test_a_grid_may_run_beside_the_main_thread() -> None:
    with ThreadPoolExecutor() as pool:
        assert pool.submit(grid.run, []).result() == []


def test_a_failed_training_says_why_and_stops_the_rest(tmp_path: Path) -> None:
    good = grid.Job(name="good", experiment=micro(steps=10_000), folder=tmp_path / "good")
    bad = grid.Job(name="bad", experiment=micro(data="shapess"), folder=tmp_path / "bad")
    with pytest.raises(UserError, match=r"'bad' failed .* Did you mean 'shapes'"):
        grid.run([good, bad], workers=2)
    assert progress.read(good.folder).state in {"waiting", "interrupted"}


def test_a_signal_leaves_runs_that_the_same_call_goes_on_with(tmp_path: Path) -> None:
    code = (
        "from detdistill import grid; from detdistill.train.experiment import *; "
        "from pathlib import Path; grid.run([grid.Job(name='long', folder=Path('long'), "
        "experiment=Experiment(data='shapes:tiny', images=16, steps=100000, batch_size=4))])"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, env=os.environ
    )
    _wait_for_steps(tmp_path / "long")
    parent.send_signal(signal.SIGTERM)
    assert b"Give the same command again" in parent.communicate(timeout=60)[1]
    found = progress.read(tmp_path / "long")
    assert found.state == "interrupted"
    assert (tmp_path / "long" / "checkpoints" / "last" / "state.pt").exists()


def _wait_for_steps(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while progress.read(folder).loss is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_half_a_line_of_metrics_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "running", "step": 0, "steps": 9}')
    lines = '{"kind": "train", "step": 3, "task": {"cls": 1.0}, "distill": {"pkd/a": 0.5}}\n{"ki'
    (tmp_path / "metrics.jsonl").write_text(lines)
    assert progress.read(tmp_path) == progress.Reading(state="running", step=3, steps=9, loss=1.5)


class Mortal:
    """A child that has ended with a code, a signal's number if it is negative."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    def send_signal(self, _number: int, /) -> None: ...

    def wait(self, _timeout: float, /) -> None: ...

    def kill(self) -> None: ...


def mortal_run(folder: Path, codes: list[int], *, overwrite: bool = False) -> list[list[str]]:
    """The command lines of a grid of one job whose children end with these codes."""
    said: list[list[str]] = []

    def launch(words: Sequence[str], _log: Path) -> Mortal:
        said.append(list(words))
        state = {"state": "running", "step": 1, "steps": 2}
        folder.mkdir(exist_ok=True)
        (folder / "status.json").write_text(json.dumps(state))
        return Mortal(codes[len(said) - 1])

    job = grid.Job(name="run", experiment=micro(), folder=folder)
    grid.run([job], launch=launch, overwrite=overwrite)
    return said


def test_a_killed_training_is_started_again_and_goes_on(tmp_path: Path) -> None:
    said = mortal_run(tmp_path / "run", [-9, 0], overwrite=True)
    assert [words[-1] for words in said] == ["--overwrite", "--resume"]


def test_a_training_that_is_killed_again_and_again_is_reported(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "run.log").write_text("out of memory\n")
    with pytest.raises(UserError, match="'run' was killed 3 times: out of memory"):
        mortal_run(tmp_path / "run", [-9] * 9)


def test_a_training_that_outlives_its_grid_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = grid.Job(name="run", experiment=micro(steps=40), folder=tmp_path / "run")
    words = ["train", "--steps", "40", "--out", str(job.folder)]
    for name, value in (("data", "shapes:tiny"), ("images", "16"), ("batch_size", "4")):
        words += [f"--{name}", value]
    (tmp_path / "jobs").mkdir()
    orphan = Machine().launch(
        [*words, "--optimizer.warmup_steps", "1"], tmp_path / "jobs" / "run.log"
    )
    assert grid.run([job]) == ["run"]
    assert orphan.poll() == 0
    assert "already at work" in capsys.readouterr().err


def test_what_waits_for_a_failed_training_is_not_started(tmp_path: Path) -> None:
    teacher, student = teacher_and_student(tmp_path)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "teacher.log").write_text("the disk is full\n")
    failures: list[UserError] = []
    launched = grid.run([teacher, student], launch=lambda *_: Mortal(2), on_failure=failures.append)
    assert launched == ["teacher"]
    first, second = map(str, failures)
    assert "the disk is full" in first
    assert second == "The training 'student' was not started, for 'teacher' failed."


def test_a_finished_run_of_another_teacher_is_not_taken_for_one_of_this(tmp_path: Path) -> None:
    teacher, student = teacher_and_student(tmp_path)
    grid.run([teacher, student])
    grid.run(
        [grid.Job(name="teacher", experiment=micro(seed=1), folder=teacher.folder)], overwrite=True
    )
    with pytest.raises(UserError, match=r"student learned from other weights .*teacher holds now"):
        grid.run([student])


def test_trainings_side_by_side_share_the_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: set[int] = set()
    given: list[str | None] = []

    class Child:
        def __init__(self, _words: Sequence[str], *, env: dict[str, str], **_: object) -> None:
            self.number = len(given)
            given.append(env.get(machine.GPUS))

        def poll(self) -> int | None:
            return 0 if self.number in ended else None

    monkeypatch.setattr(machine.subprocess, "Popen", Child)
    for variable in (machine.GPUS, device.VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    here = Machine(gpus=["2", "5"])
    assert here.places == 2
    for _ in range(3):
        here.launch([], tmp_path / "log")
    ended.add(1)
    here.launch([], tmp_path / "log")
    assert given == ["2", "5", "2", "5"]
    given.clear()
    Machine(gpus=[]).launch([], tmp_path / "log")
    assert given == [None]


@pytest.mark.parametrize(("named", "places"), [("cpu", machine.cores()), ("cuda:1", 1)])
def test_where_a_device_is_named_trainings_share_it(
    named: str, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device.VARIABLE, named)
    here = Machine()
    assert (here.places, here.gpus) == (places, [])
