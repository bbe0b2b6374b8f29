import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.train.processes import SECONDS, Launcher, train_in_process

from detdistill.files import read_json
from detdistill.train.experiment import Experiment
from detdistill.train.loop import train


def wait_for(happened: Callable[[], bool], process_is_alive: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not happened() and process_is_alive() and time.monotonic() < end:
        time.sleep(0.0002)


def lines(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student.safetensors")


@pytest.fixture(scope="module")
def often_saved(plain: Experiment) -> Experiment:
    return replace(plain, steps=10, save_every=1, log_every=1)


@pytest.fixture(scope="module")
def whole(often_saved: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(often_saved, folder, device="cpu")
    return folder


def test_killed_at_any_moment_a_run_goes_on_as_if_it_had_not_been(
    often_saved: Experiment, whole: Path, tmp_path: Path, launcher: Launcher
) -> None:
    run = tmp_path / "run"
    saving, replacing = (run / "checkpoints" / f".last.{end}" for end in ("tmp", "old"))
    moments: list[Callable[[], bool]] = [
        (run / "experiment.yaml").exists,
        lambda: lines(run) >= 2,
        lambda: lines(run) >= 4 or saving.exists(),
        lambda: lines(run) >= 7 or (lines(run) >= 5 and saving.exists()),
        lambda: lines(run) >= 9 or (lines(run) >= 7 and replacing.exists()),
    ]
    for moment in moments:
        process = launcher.start(train_in_process, often_saved, run)
        wait_for(moment, process.is_alive)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    train(often_saved, run, resume=True, device="cpu")
    expected = weights(whole)
    assert all(torch.equal(expected[name], value) for name, value in weights(run).items())
    assert lines(run) == lines(whole)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_step_and_leaves_a_run_that_goes_on(
    often_saved: Experiment,
    whole: Path,
    tmp_path: Path,
    launcher: Launcher,
    number: signal.Signals,
) -> None:
    experiment = replace(often_saved, save_every=1000)
    run, message = tmp_path / "run", tmp_path / "message"
    process = launcher.start(train_in_process, experiment, run, message)
    wait_for(lambda: lines(run) >= 3, process.is_alive)
    assert process.pid
    os.kill(process.pid, number)
    process.join(SECONDS)
    status = read_json(run / "status.json")
    assert status["state"] == "interrupted"
    assert 3 <= status["step"] < 10
    assert f"saved up to step {status['step']} of 10" in message.read_text()
    assert "--resume" in message.read_text()
    train(experiment, run, resume=True, device="cpu")
    expected = weights(whole)
    assert all(torch.equal(expected[name], value) for name, value in weights(run).items())


def test_the_second_signal_stops_at_once(
    often_saved: Experiment, tmp_path: Path, launcher: Launcher
) -> None:
    experiment = replace(often_saved, steps=100_000, save_every=100_000, log_every=1)
    run, message = tmp_path / "run", tmp_path / "message"
    process = launcher.start(two_interrupts_in_one_step, experiment, run, message)
    process.join(SECONDS)
    assert "saved up to step 0" in message.read_text()
    assert not (run / "checkpoints" / "last").exists()


def two_interrupts_in_one_step(experiment: Experiment, run: Path, message: Path) -> None:
    from detdistill.train.trainer import Trainer

    advance = Trainer.advance

    def interrupted(self: Trainer, *arguments: object) -> None:
        advance(self, *arguments)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    Trainer.advance = interrupted  # type: ignore[method-assign,assignment]
    train_in_process(experiment, run, message)
