"""Where the tensors of a process on a CPU get their memory from."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MOST_MAPPED = -1, -4
"""Two of the parameters in glibc's `malloc.h`: bytes at the end of the heap from which on they are
given back, and how many blocks may come straight from the system."""
NEVER = -1


def keep_freed_memory() -> None:
    """Keeps what tensors free for the next ones, from now on and until the process ends.

    Otherwise what a step holds for its gradient is given back after it, and got again in the next,
    page by page, each cleared by the system. Only glibc can be told; elsewhere, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(TRIM_THRESHOLD, NEVER)
        allocator.mallopt(MOST_MAPPED, 0)
