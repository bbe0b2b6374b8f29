"""How far trainings in other processes are, read from their folders and shown to the user."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from detdistill import run_files

TAIL_BYTES = 8192
"""Enough of a metrics file to hold its last line."""

PLAIN_LINES = 5
"""Lines per training where there is no terminal."""

KEPT = "kept: it had finished before"
STARTS = "starts"
AT_WORK = "already at work: waiting for it"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How far one training is."""

    state: str = "waiting"
    """`waiting`, or what its status says: `running`, `finished`, `interrupted`, `failed`."""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    """Sum of the last logged losses."""

    @property
    def share(self) -> float:
        """Part of the steps that is done, 0 to 1."""
        return self.step / self.steps if self.steps else 0.0


def read(folder: Path) -> Reading:
    """Reads a run folder; one that is not there yet is waiting."""
    status = _object(_text(folder / run_files.STATUS))
    if not status:
        return Reading()
    last = _last_training_line(folder / run_files.METRICS)
    return Reading(
        state=status.get("state", "running"),
        step=max(status.get("step", 0), last.get("step", 0)),
        steps=status.get("steps", 0),
        loss=_total(last),
    )


class View(ABC):
    """Shows several trainings; those that were not announced are waiting."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self.begun: set[str] = set()

    def begin(self, name: str, note: str = STARTS) -> None:  # noqa: ARG002 - bars show themselves
        """Says that a training starts now, or what else the note says."""
        self.begun.add(name)

    @abstractmethod
    def keep(self, name: str) -> None:
        """Says that a training had finished before and is kept."""

    @abstractmethod
    def show(self, name: str, reading: Reading) -> None:
        """Shows where one training is."""

    def update(self) -> None:
        """Shows where all trainings are now."""
        for name in sorted(self.begun):
            self.show(name, read(self.folders[name]))


class Bars(View):
    """A progress bar per training, for a terminal."""

    def __init__(self, folders: dict[str, Path], console: Console) -> None:
        super().__init__(folders)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self.tasks = {name: self._add(name) for name in folders}

    def _add(self, name: str) -> TaskID:
        return self.progress.add_task(name, total=1, start=False, note="waiting")

    def begin(self, name: str, note: str = STARTS) -> None:
        """Starts its clock."""
        super().begin(name, note)
        self.progress.start_task(self.tasks[name])

    def keep(self, name: str) -> None:
        """Draws a full bar."""
        reading = read(self.folders[name])
        self._draw(name, reading, KEPT)

    def show(self, name: str, reading: Reading) -> None:
        """Moves its bar."""
        self._draw(name, reading, _note(reading))
        if reading.state == "finished":
            self.progress.stop_task(self.tasks[name])

    def _draw(self, name: str, reading: Reading, note: str) -> None:
        steps = reading.steps or 1
        self.progress.update(self.tasks[name], completed=reading.step, total=steps, note=note)


class Lines(View):
    """A line now and then per training, for a file or a pipe."""

    def __init__(self, folders: dict[str, Path], console: Console) -> None:
        super().__init__(folders)
        self.console = console
        self.said: dict[str, int] = dict.fromkeys(folders, 0)

    def begin(self, name: str, note: str = STARTS) -> None:
        """Prints a line."""
        super().begin(name, note)
        self._say(name, note)

    def keep(self, name: str) -> None:
        """Prints a line."""
        self._say(name, KEPT)

    def show(self, name: str, reading: Reading) -> None:
        """Prints a line when a further part of the steps is done."""
        part = int(reading.share * PLAIN_LINES)
        if part > self.said[name]:
            self.said[name] = part
            self._say(name, _note(reading))

    def _say(self, name: str, text: str) -> None:
        width = max(map(len, self.folders))
        self.console.print(f"{name:<{width}}  {text}", markup=False, highlight=False)


@contextmanager
def shown(folders: dict[str, Path]) -> Iterator[View]:
    """Bars on a terminal, plain lines elsewhere, for the length of a block."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(folders, console)
        return
    bars = Bars(folders, console)
    with bars.progress:
        yield bars


def _note(reading: Reading) -> str:
    if not reading.steps:
        return "preparing"
    loss = "" if reading.loss is None else f", loss {reading.loss:.3f}"
    done = ", evaluating" if reading.step == reading.steps else ""
    if reading.state == "running":
        return f"{reading.step}/{reading.steps} steps{loss}{done}"
    return f"{reading.step}/{reading.steps} steps, {reading.state}"


def _last_training_line(file: Path) -> dict[str, Any]:
    """The last whole training line of a metrics file."""
    for line in reversed(_text(file, tail=TAIL_BYTES).splitlines()):
        entry = _object(line)
        if entry.get("kind") == "train":
            return entry
    return {}


def _total(line: dict[str, Any]) -> float | None:
    losses = {**line.get("task", {}), **line.get("distill", {})}
    return sum(losses.values()) if losses else None


def _text(file: Path, tail: int = 0) -> str:
    """The text of a file that another process may be writing; empty if there is none."""
    try:
        return file.read_bytes()[-tail:].decode("utf-8", errors="replace")
    except OSError:
        return ""


def _object(text: str) -> dict[str, Any]:
    """A JSON object; empty for half of one."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
