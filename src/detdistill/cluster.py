"""Trainings spread over several machines: each is a task of a Ray cluster.

The machines share the folder that the runs lie in, under the same path, and have the same package.
A training is the same command line as on one machine, in a worker process of its own; what it says
goes to the same log, and what it leaves behind is found by the next call in the same way.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detdistill.errors import MissingExtraError, UserError

LOCAL = "local"
"""A cluster of this machine alone, which is started and stopped with the trainings."""

POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster to which this process is connected."""

    ray: Any
    """The package, which is an extra."""
    cpus: int
    gpus: int

    @property
    def places(self) -> int:
        """Trainings at a time: one on each GPU, or without any one on each core."""
        return max(1, self.gpus or self.cpus)

    def launch(self, words: Sequence[str], log: Path) -> Training:
        """Gives the command line to the first machine that has a place.

        The log is empty until then: a worker that is lost before it says a word leaves no other's.
        """
        log.write_bytes(b"")
        task = self.ray.remote(
            num_cpus=1,
            num_gpus=1 if self.gpus else 0,
            max_calls=1,  # every training has a fresh process
            max_retries=0,  # the grid tries again, for it knows what to go on from
        )(train)
        return Training(self.ray, task.remote(list(words), str(log.resolve()), str(Path.cwd())))


@dataclass(frozen=True)
class Training:
    """A task at work, as a grid sees its children."""

    ray: Any
    task: Any

    def poll(self) -> int | None:
        """Its exit code, negative if its worker or its machine was lost; None while it works."""
        done, _ = self.ray.wait([self.task], timeout=0)
        if not done:
            return None
        try:
            return int(self.ray.get(self.task))
        except self.ray.exceptions.TaskCancelledError:
            return int(signal.SIGINT)
        except self.ray.exceptions.RayTaskError as error:
            raise UserError(
                f"A machine of the cluster cannot train: {error.cause}. All of them must share "
                "the folder of the runs under the same path, and have the same packages."
            ) from error
        except self.ray.exceptions.RayError:
            return -signal.SIGKILL

    def send_signal(self, _number: int, /) -> None:
        """Interrupts it, as Ctrl-C does; a task knows no other signal."""
        self.ray.cancel(self.task, force=False)

    def wait(self, timeout: float, /) -> None:
        """Until it has ended; `subprocess.TimeoutExpired` after so many seconds."""
        deadline = time.monotonic() + timeout
        while not self.ray.wait([self.task], timeout=POLL_SECONDS)[0]:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a task of the cluster", timeout)

    def kill(self) -> None:
        """Ends its worker at once."""
        self.ray.cancel(self.task, force=True)


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """A cluster for the length of a block.

    Args:
        address: of a running cluster, as `10.0.0.1:6379` or `auto`; `local` starts one here.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _ray()
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="warning",
            include_dashboard=False if address == LOCAL else None,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"There is no Ray cluster at {address!r} ({error}). Start one with 'ray start --head' "
            f"and name its address, or use {LOCAL!r} for this machine alone."
        ) from error
    try:
        found = ray.cluster_resources()
        yield Cluster(ray=ray, cpus=int(found.get("CPU", 1)), gpus=int(found.get("GPU", 0)))
    finally:
        ray.shutdown()


def train(words: list[str], log: str, folder: str) -> int:
    """Runs a command line in this worker and returns its exit code.

    Args:
        words: the command line, without the program's name.
        log: gets what it says.
        folder: where relative paths start.
    """
    os.chdir(folder)
    sys.argv = ["detdistill", *words]
    with (
        Path(log).open("w", encoding="utf-8") as output,
        redirect_stdout(output),
        redirect_stderr(output),
    ):
        try:
            runpy.run_module("detdistill", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def _ray() -> Any:  # noqa: ANN401 - the package itself
    """Ray, told not to report to its makers.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError("A cluster", "ray", error) from error
