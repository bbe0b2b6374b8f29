"""Trainings as forks of one process that has imported everything and drawn the pictures.

A new interpreter spends some seconds on both, which is much of a short training.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from detdistill import cli, data, grid


def warm_up(names: Iterable[str]) -> None:
    """Imports what a training needs, and draws the built-in pictures of these data sets."""
    torch.set_num_threads(1)  # no thread of ours may be there when we fork
    import detdistill.cli.experiments
    import detdistill.train.loop  # noqa: F401

    for name in names:
        for split in ("train", "test"):
            dataset = data.open(name, split)
            for index in range(len(dataset)):
                dataset[index]


def fork(words: Sequence[str], log: Path) -> grid.Process:
    """Runs a command line in a copy of this process; what it says goes to `log`."""
    process = multiprocessing.get_context("fork").Process(target=_command, args=(words, log))
    process.start()
    return _Fork(process)


def _command(words: Sequence[str], log: Path) -> None:
    os.setsid()
    with log.open("wb") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    sys.exit(cli.main(words))


class _Fork:
    """A copy of this process at work."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.kill = process.kill

    def poll(self) -> int | None:
        """Its exit code; None while it works."""
        return self._process.exitcode

    def send_signal(self, number: int, /) -> None:
        """Signals it, if it works."""
        if self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, number)

    def wait(self, timeout: float, /) -> None:
        """Until it has ended; `subprocess.TimeoutExpired` after so many seconds."""
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired("training", timeout)
