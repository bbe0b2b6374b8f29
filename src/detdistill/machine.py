"""Trainings on this machine, each in a Python of its own, with one thread."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from detdistill import device

GPUS = "CUDA_VISIBLE_DEVICES"


class Machine:
    """Starts command lines; with GPUs, each on the one that has the fewest of them.

    Where the environment names a device, that one is for all of them.
    """

    def __init__(self, gpus: Sequence[str] | None = None) -> None:
        self._named = os.environ.get(device.VARIABLE)
        self.gpus = gpus if gpus is not None else [] if self._named else _gpus()
        self._at_work: list[tuple[str, subprocess.Popen[bytes]]] = []

    @property
    def places(self) -> int:
        """Trainings at a time: one on each GPU, or without any one on each core."""
        if self._named and self._named != "cpu":
            return 1
        return len(self.gpus) or cores()

    def launch(self, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts the command line; what it says goes to `log`, on which it holds a lock."""
        environment, gpu = _one_thread(os.environ), self._idlest()
        if gpu is not None:
            environment[GPUS] = gpu
        with log.open("ab") as output:
            fcntl.flock(output, fcntl.LOCK_EX)  # the child inherits it, and holds it until it ends
            output.truncate(0)
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "detdistill", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        if gpu is not None:
            self._at_work.append((gpu, process))
        return process

    def _idlest(self) -> str | None:
        self._at_work = [(gpu, child) for gpu, child in self._at_work if child.poll() is None]
        used = Counter(gpu for gpu, _ in self._at_work)
        return min(self.gpus, key=lambda gpu: used[gpu], default=None)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> Sequence[str]:
    """Those that CUDA may use here, as its own variable names them."""
    from torch import cuda  # only here: a page of help needs no torch

    count = cuda.device_count()
    named = os.environ.get(GPUS)
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _one_thread(environment: Mapping[str, str]) -> dict[str, str]:
    """Trainings side by side must not fight for cores."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**environment, **dict.fromkeys(names, "1"), "PYTHONUNBUFFERED": "1"}
