"""Where the tensors of a process on a CPU get their memory from."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MOST_MAPPED = -1, -4
"""Two of the parameters in glibc's `malloc.h`."""
NEVER = -1
GLIBCS = {TRIM_THRESHOLD: 128 * 1024, MOST_MAPPED: 65536}
"""What glibc does of itself: bytes at the end of the heap, and blocks of their own."""


def keep_freed_memory(*, keep: bool) -> None:
    """Whether what tensors free is kept for the next ones, or given back to the system.

    A large tensor otherwise gets pages that the system has to clear and hand out one by one, which
    takes longer than an addition of two maps. Only glibc can be told, and only for all of a
    process; elsewhere, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    allocator = ctypes.CDLL(None)
    if not hasattr(allocator, "mallopt"):
        return
    wanted = {TRIM_THRESHOLD: NEVER, MOST_MAPPED: 0} if keep else GLIBCS
    for parameter, value in wanted.items():
        allocator.mallopt(parameter, value)
