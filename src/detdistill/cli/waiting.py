"""Shows how much of a long work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LONG = 100
"""From how many pieces on there are lines where there is no terminal."""

LINES = 10


@contextmanager
def counting(total: int, what: str) -> Iterator[Callable[[int], object]]:
    """Takes how many pieces are done: a bar on a terminal, a line for each tenth elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total, what, console) if total >= LONG else _ignore
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def _ignore(_done: int) -> None:
    """Says nothing."""


class _Lines:
    """A line now and then."""

    def __init__(self, total: int, what: str, console: Console) -> None:
        self.total, self.what, self.console = total, what, console
        self.said = 0

    def __call__(self, done: int) -> None:
        part = done * LINES // self.total
        if part > self.said:
            self.said = part
            self.console.print(f"{done} of {self.total} {self.what}", highlight=False)
