"""One training at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import Accelerator

from detdistill.errors import UserError
from detdistill.train.engine import first

_handles: set[int] = set()
"""Of the folders that this process holds."""


@contextmanager
def held(folder: Path, ranks: Accelerator) -> Iterator[None]:
    """Keeps other trainings out of a folder inside; it is made if it is not there.

    The system lets go of it when the first rank ends, however that comes. Nobody is kept out where
    the file system knows no locks, and on NFS only those of the same machine.

    Raises:
        UserError: another training holds it, or it cannot be made; on every rank.
    """
    with ExitStack() as stack:
        first(ranks, lambda: stack.enter_context(_locked(folder)))
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror or error}.") from error
    _handles.add(handle)
    try:
        if not _lock(handle):
            raise UserError(
                f"Another training is at work in {folder}. Stop it, or choose another folder."
            )
        yield
    finally:
        _handles.remove(handle)
        os.close(handle)


def _lock(handle: int) -> bool:
    """Whether nobody else has locked it, who could."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # no locks here
    return True


def _let_go() -> None:
    """In children, such as those that load data: a lock lasts as long as anyone has its handle."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


os.register_at_fork(after_in_child=_let_go)
