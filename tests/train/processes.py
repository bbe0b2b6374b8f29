"""Trainings in processes of their own, to be killed or to work together."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

import torch

from detdistill.train.experiment import Experiment
from detdistill.train.loop import train

SECONDS = 120


class Launcher:
    """Starts functions of modules in fresh processes."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.train.processes", "tests.train.fakes"])
        self._started: list[BaseProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            if process.is_alive():
                process.kill()

    def start(self, function: Callable[..., object], *arguments: Any) -> BaseProcess:
        process = self._context.Process(target=function, args=arguments, daemon=True)
        process.start()
        self._started.append(process)
        return process

    def on_two_ranks(self, function: Callable[[int], Any], folder: Path) -> list[Any]:
        """What a function returns on rank 0 and on rank 1."""
        port = _free_port()
        ranks = [self.start(_on_rank, function, rank, port, folder) for rank in range(2)]
        for rank in ranks:
            rank.join(SECONDS)
        answers = [torch.load(folder / f"{i}.pt", weights_only=False) for i in range(2)]
        failures = [answer for answer in answers if isinstance(answer, _Failure)]
        assert not failures, failures[0].text
        return answers


class _Failure:
    def __init__(self, text: str) -> None:
        self.text = text


def _on_rank(function: Callable[[int], Any], rank: int, port: int, folder: Path) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    try:
        answer = function(rank)
    except BaseException:  # noqa: BLE001 - the parent says it
        answer = _Failure(traceback.format_exc())
    torch.save(answer, folder / f"{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def train_in_process(experiment: Experiment, folder: Path, message: Path | None = None) -> None:
    """Trains or goes on; writes to `message` how it was interrupted."""
    torch.set_num_threads(1)
    try:
        train(experiment, folder, resume=True, device="cpu")
    except KeyboardInterrupt as interrupt:
        if message is None:
            raise
        message.write_text(str(interrupt))
