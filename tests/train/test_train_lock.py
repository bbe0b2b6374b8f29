"""Two trainings never write to one folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from accelerate import Accelerator

from detdistill.errors import UserError
from detdistill.train.experiment import Experiment
from detdistill.train.lock import held
from detdistill.train.loop import train


@pytest.fixture
def alone() -> Accelerator:
    return Accelerator(cpu=True)


def test_a_second_training_is_refused(tmp_path: Path, alone: Accelerator) -> None:
    folder = tmp_path / "run"
    with (
        held(folder, alone),
        pytest.raises(UserError, match="Another training is at work"),
        held(folder, alone),
    ):
        pass
    with held(folder, alone):
        assert list(folder.iterdir()) == []


def test_a_second_training_writes_nothing(
    plain: Experiment, tmp_path: Path, alone: Accelerator
) -> None:
    folder = tmp_path / "run"
    with held(folder, alone):
        with pytest.raises(UserError, match="Another training is at work"):
            train(plain, folder)
        assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, alone: Accelerator) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot write"), held(tmp_path / "file" / "run", alone):
        pass


def test_children_do_not_hold_on_to_the_folder(tmp_path: Path, alone: Accelerator) -> None:
    hears, says = os.pipe()
    with held(tmp_path, alone):
        child = os.fork()
        if not child:
            os.write(says, b"begun")
            signal.pause()
        os.read(hears, 1)
    try:
        with held(tmp_path, alone):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
