"""What a run says while it goes: the progress bar or plain lines, `train.log`, the metrics."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from detdistill import run_files
from detdistill.errors import UserError
from detdistill.train.folder import RunFolder

PLAIN_LINES = 20
"""How often a run speaks where there is no terminal."""


class Journal:
    """Writes the logs of one run, and shows the user where it stands.

    Args:
        folder: where the files are.
        start: steps that were done before.
        steps: of the whole training.
        tensorboard: whether to write events for TensorBoard, too.
        enabled: False on all ranks but one; then nothing is written or said.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        start: int,
        steps: int,
        tensorboard: bool = False,
        enabled: bool = True,
    ) -> None:
        self._folder = folder
        self._steps = steps
        self._enabled = enabled
        self._next_line = 0
        self._console = Console(stderr=True, highlight=False)
        self._bar = _bar(self._console, enabled=enabled and self._console.is_terminal)
        self._task = self._bar.add_task("training", total=steps, completed=start, numbers="")
        self._board = _board(folder, start) if tensorboard and enabled else None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._board:
            self._board.close()

    def say(self, text: str) -> None:
        """A line for the user and for `train.log`."""
        if self._enabled:
            self.note(text)
            self._show(text)

    def note(self, text: str) -> None:
        """A line for `train.log` alone."""
        if self._enabled:
            time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
            with self._folder.log.open("a", encoding="utf-8") as file:
                file.write(f"{time}  {text}\n")

    def step(self, done: int) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=done)

    def record(self, entry: dict[str, Any]) -> None:
        """A line of the metrics."""
        if not self._enabled:
            return
        with self._folder.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self._board:
            for name, value in _scalars(entry):
                self._board.add_scalar(name, value, entry["step"])
        if entry["kind"] == "train":
            self._report(entry)

    def _report(self, entry: dict[str, Any]) -> None:
        line = training_line(entry, self._steps)
        self.note(line)
        self._bar.update(self._task, numbers=short_line(entry))
        if not self._console.is_terminal and entry["step"] >= self._next_line:
            self._next_line = entry["step"] + self._steps / PLAIN_LINES
            self._show(line)

    def _show(self, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(text, markup=False)
        else:
            with suppress(BrokenPipeError):  # who listened has gone, the training goes on
                print(text, file=sys.stderr, flush=True)  # noqa: T201 - plain lines, not wrapped


def check_tensorboard() -> None:
    """Refuses to start a run whose events could not be written.

    Raises:
        UserError: the package is not installed.
    """
    if find_spec("tensorboard") is None:
        raise UserError(
            "tensorboard is not installed: pip install '.[tensorboard]' where detdistill was "
            "installed from, or leave the option out."
        )


def training_line(entry: dict[str, Any], steps: int) -> str:
    """`step 120/600  total 1.31  cls 0.52  box 0.41  crosskd/cls 0.12  ...`."""
    losses = {**entry["task"], **entry["distill"]}
    total = sum(losses.values())
    parts = [f"step {entry['step']}/{steps}", f"total {total:.4g}"]
    parts += [f"{name} {value:.3g}" for name, value in losses.items()]
    parts += [f"lr {entry['lr']:.3g}", f"{entry['step_ms']:.0f} ms/step"]
    left = (steps - entry["step"]) * entry["step_ms"] / 1000
    return "  ".join([*parts, f"{_clock(left)} left"])


def short_line(entry: dict[str, Any]) -> str:
    """`task 1.31  crosskd 0.12  lr 0.012`: one sum for the task and for each method."""
    sums = {"task": sum(entry["task"].values())}
    for name, value in entry["distill"].items():
        method = name.partition("/")[0]
        sums[method] = sums.get(method, 0.0) + value
    parts = [f"{name} {value:.3g}" for name, value in sums.items()]
    return "  ".join([*parts, f"lr {entry['lr']:.2g}", f"{entry['step_ms']:.0f} ms/step"])


def _clock(seconds: float) -> str:
    """`3:05`, or `2:07:00` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(console: Console, *, enabled: bool) -> Progress:
    return Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
        console=console,
        disable=not enabled,
    )


def _board(folder: RunFolder, start: int) -> Any:  # noqa: ANN401 - an optional package's class
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder.path / run_files.TENSORBOARD), purge_step=start + 1)


def _scalars(entry: dict[str, Any]) -> list[tuple[str, float]]:
    """The numbers of an entry under names like `task/cls` and `metrics/AP`."""
    kind = entry["kind"]
    flat = [(f"{kind}/{k}", v) for k, v in entry.items() if isinstance(v, float)]
    flat += [(f"task/{k}", v) for k, v in entry.get("task", {}).items()]
    flat += list(entry.get("distill", {}).items())
    metrics = entry.get("metrics", {}).items()
    return flat + [(f"metrics/{k}", v) for k, v in metrics if isinstance(v, float)]
