"""Several trainings side by side, each a process of its own.

A run that has finished is kept, an interrupted one is resumed; so the same call can be repeated
until everything is there. The folder `jobs` beside the runs has what each was asked and said.

A training that is killed is started again. If the grid itself is killed, its trainings work on;
each holds a lock on the file that it talks to, so that the next call waits for them.
"""

from __future__ import annotations

import fcntl
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from detdistill import progress
from detdistill.errors import UserError
from detdistill.machine import Machine
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment

SECONDS_TO_SAVE = 60
"""How long an interrupted training may take to leave a resumable folder."""

POLL_SECONDS = 0.2

MAX_RESTARTS = 2
"""How often a training that something killed, such as a lack of memory, is started again."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of a grid."""

    name: str
    experiment: Experiment
    folder: Path
    after: tuple[str, ...] = ()
    """Names of jobs that must have finished first, such as the teacher's."""


class Process(Protocol):
    """What is asked of a child: the part of `subprocess.Popen` that is used here."""

    def poll(self) -> int | None:
        """Its exit code, negative if it was killed; None while it works."""

    def send_signal(self, number: int, /) -> None:
        """Signals it, if it works."""

    def wait(self, timeout: float, /) -> object:
        """Until it has ended; `subprocess.TimeoutExpired` after so many seconds."""

    def kill(self) -> None:
        """Ends it at once."""


Launch = Callable[[Sequence[str], Path], Process]
"""Starts a process for a command line, with a file for what it says."""


@dataclass(frozen=True)
class _Child:
    """A job at work."""

    job: Job
    process: Process


def give_up(failure: UserError) -> None:
    """Lets one failed training end all."""
    raise failure


def run(
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    overwrite: bool = False,
    launch: Launch | None = None,
    on_failure: Callable[[UserError], None] = give_up,
) -> list[str]:
    """Trains what is not there yet, as many at a time as there are GPUs, or cores without any.

    Args:
        jobs: what to train; a job comes behind those that it waits for.
        workers: how many at a time; None for as many as the machine has places for.
        overwrite: train anew what is there already.
        launch: starts a process for a command line, with a file for what it says; None for a
            Python on this machine.
        on_failure: hears why a training failed; unless it raises, the others go on.

    Returns:
        The names of the jobs that were trained; the others had finished before.

    Raises:
        UserError: a training failed, or a folder holds another experiment or what was learned
            from another teacher.
        KeyboardInterrupt: after the trainings have saved where they are.
    """
    machine = Machine()
    grid = _Grid(
        jobs,
        workers=workers or machine.places,
        overwrite=overwrite,
        launch=launch or machine.launch,
    )
    shown = progress.shown({job.name: job.folder for job in jobs})
    with shown as view, _children(overwrite=overwrite) as children:
        while grid.waiting or children:
            grid.start_what_can(children, view)
            failures = [*filter(None, map(grid.collect, _ended(children))), *grid.stop_waiting()]
            for failure in failures:
                on_failure(failure)
            view.update()
            time.sleep(POLL_SECONDS if children or grid.elsewhere else 0)
    return list(dict.fromkeys(grid.trained))


class _Grid:
    """Which jobs wait, and which were trained by this call."""

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        workers: int,
        overwrite: bool,
        launch: Launch,
    ) -> None:
        self.waiting = list(jobs)
        self.finished = [job for job in jobs if not overwrite and _is_finished(job)]
        self.trained: list[str] = []
        self.failed: set[str] = set()
        self.restarts: Counter[str] = Counter()
        self.elsewhere: set[str] = set()
        """Names of jobs at which the trainings of an earlier call, which was killed, still work."""
        self.workers = workers
        self.overwrite = overwrite
        self.launch = launch

    def start_what_can(self, children: list[_Child], view: progress.View) -> None:
        """Starts, or keeps, every job whose turn it is; one that is at work already must wait."""
        ready = _startable(self.waiting, children, self.workers)
        at_work = {job.name for job in ready if _is_locked(_log(job))}
        for name in at_work - self.elsewhere:
            view.begin(name, progress.AT_WORK)
        self.elsewhere = at_work
        for job in ready:
            if job.name not in at_work:
                self._start_or_keep(job, children, view)

    def collect(self, child: _Child) -> UserError | None:
        """Why a child that has ended failed; one that was killed is put back a few times first."""
        code, name = child.process.poll(), child.job.name
        if not code:
            return None
        if code < 0 and self.restarts[name] < MAX_RESTARTS:
            self.restarts[name] += 1
            self.waiting.insert(0, child.job)
            return None
        self.failed.add(name)
        return _failure(child.job, code)

    def stop_waiting(self) -> Iterator[UserError]:
        """Why jobs that wait for one that failed will not be trained."""
        for job in [job for job in self.waiting if self.failed.intersection(job.after)]:
            self.waiting.remove(job)
            self.failed.add(job.name)
            reasons = " and ".join(repr(name) for name in job.after if name in self.failed)
            yield UserError(f"The training {job.name!r} was not started, for {reasons} failed.")

    def _start_or_keep(self, job: Job, children: list[_Child], view: progress.View) -> None:
        self.waiting.remove(job)
        if job in self.finished and not self._is_fresh(job):
            _require_same_teacher(job)
            view.keep(job.name)
            return
        view.begin(job.name)
        config = _write_config(job)
        anew = self._is_fresh(job) and not self._is_under_way(job)
        process = self.launch(_command_line(job, config, overwrite=anew), _log(job))
        children.append(_Child(job, process))
        self.trained.append(job.name)

    def _is_under_way(self, job: Job) -> bool:
        """Whether what is in the folder is what this call began and something killed."""
        return bool(self.restarts[job.name]) and progress.read(job.folder).state == "running"

    def _is_fresh(self, job: Job) -> bool:
        """Whether what is in the folder does not count: by wish, or because of a new teacher."""
        return self.overwrite or not set(self.trained).isdisjoint(job.after)


def _startable(waiting: Sequence[Job], children: Collection[_Child], workers: int) -> list[Job]:
    """Waiting jobs whose turn it is: nothing that they wait for is unfinished."""
    unfinished = {job.name for job in waiting} | {child.job.name for child in children}
    ready = [job for job in waiting if not unfinished.intersection(job.after)]
    return ready[: workers - len(children)]


def _write_config(job: Job) -> Path:
    """Writes down what is to be trained; returns the file."""
    config = job.folder.parent / "jobs" / f"{job.folder.name}.yaml"
    experiments.save(job.experiment, config)
    return config


def _command_line(job: Job, config: Path, *, overwrite: bool) -> list[str]:
    """What follows `detdistill` to train what a file says, anew or from where it stopped."""
    command = "distill" if job.experiment.teacher else "train"
    how = "--overwrite" if overwrite else "--resume"
    return [command, "--config", str(config), "--out", str(job.folder), how]


def _log(job: Job) -> Path:
    return job.folder.parent / "jobs" / f"{job.folder.name}.log"


def _ended(children: list[_Child]) -> list[_Child]:
    """Takes out the children that have ended."""
    found = [child for child in children if child.process.poll() is not None]
    children[:] = [child for child in children if child not in found]
    return found


def _is_locked(log: Path) -> bool:
    """Whether a training talks to this file."""
    if not log.exists():
        return False
    with log.open("ab") as output:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _failure(job: Job, code: int) -> UserError:
    log = _log(job)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
    said = lines[-1].removeprefix("detdistill: error: ")
    how = f"failed with exit code {code}" if code > 0 else f"was killed {1 + MAX_RESTARTS} times"
    return UserError(f"The training {job.name!r} {how}: {said} All it said is in {log}.")


@contextmanager
def _children(*, overwrite: bool) -> Iterator[list[_Child]]:
    """A list of children, none of which outlives the block."""
    children: list[_Child] = []
    try:
        with _termination_interrupts():
            yield children
    except KeyboardInterrupt:
        again = "the same command again" + (", without --overwrite," if overwrite else "")
        hint = f"Give {again} to go on from where the trainings stopped."
        raise KeyboardInterrupt(hint) from None
    finally:
        _stop(children)


def _stop(children: Sequence[_Child]) -> None:
    """Lets the children save where they are; one that takes too long is killed."""
    for child in children:
        child.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + SECONDS_TO_SAVE
    for child in children:
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Treats a request to terminate as Ctrl-C, so that the children are not left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _is_finished(job: Job) -> bool:
    """Whether the folder holds exactly this run, trained to the end.

    Raises:
        UserError: it holds another experiment.
    """
    written = job.folder / "experiment.yaml"
    if not written.exists():
        return False
    from detdistill.train.assembly import resolved

    changed = experiments.differences(experiments.load(written), resolved(job.experiment))
    if changed:
        raise UserError(
            f"{job.folder} holds another experiment ({'; '.join(changed)}). "
            "Use --overwrite to train it anew, or another --out."
        )
    return progress.read(job.folder).state == "finished"


def _require_same_teacher(job: Job) -> None:
    """Refuses a finished run whose teacher was trained anew since.

    Raises:
        UserError: it was.
    """
    from detdistill.interop import checkpoint  # only here: a page of help needs no torch

    if job.experiment.teacher is None:
        return
    taught_by = checkpoint.card_beside(job.folder).get("teacher")
    now = checkpoint.card_beside(Path(job.experiment.teacher)).get("fingerprint")
    if None not in {taught_by, now} and taught_by != now:
        raise UserError(
            f"{job.folder} learned from other weights than those that {job.experiment.teacher} "
            "holds now. Remove it to train it anew, or use another --out."
        )
