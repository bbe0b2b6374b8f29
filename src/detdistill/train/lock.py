"""One training at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import Accelerator

from detdistill.errors import UserError
from detdistill.train.engine import agree

_handles: set[int] = set()
"""Of the folders that this process holds."""


@contextmanager
def held(folder: Path, ranks: Accelerator) -> Iterator[None]:
    """Keeps other trainings out of a folder inside; it is made if it is not there.

    The system lets go of it when the first rank ends, however that comes. Where the file system
    knows no locks, nobody is kept out.

    Raises:
        UserError: another training holds it; on every rank.
    """
    with ExitStack() as stack:
        is_free = not ranks.is_main_process or _lock(stack.enter_context(_opened(folder)))
        complaint = f"Another training is at work in {folder}. Stop it, or choose another folder."
        if said := agree(ranks, None if is_free else complaint):
            raise UserError(said)
        yield


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A handle of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    _handles.add(handle)
    try:
        yield handle
    finally:
        _handles.remove(handle)
        os.close(handle)


def _lock(handle: int) -> bool:
    """Whether nobody else has locked it, who could."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return True
    return True


def _let_go() -> None:
    """In children, such as those that load data: a lock lasts as long as anyone has its handle."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


os.register_at_fork(after_in_child=_let_go)
