"""What a lack of memory looks like, and what to do about it."""

from __future__ import annotations

import re

_SMALLER = (
    "The memory is not enough: take fewer pictures at a time (--batch_size, in a training with "
    "--accumulate), smaller ones (--resize), or a smaller detector."
)
_SHARED = (
    "A process that loads pictures was ended by the system, mostly for lack of (shared) memory: "
    "take fewer --workers, or in a container a larger shared memory, as docker's --shm-size 8g."
)
_SIGNS = {
    r"out of memory|can't allocate memory": _SMALLER,
    r"^DataLoader worker \(pid.*(is killed by signal|exited unexpectedly)": _SHARED,
}
"""What PyTorch says."""


def advice(error: RuntimeError | MemoryError) -> str | None:
    """What to do about an error that comes of too little memory; None for any other."""
    if isinstance(error, MemoryError):
        return _SMALLER
    said = str(error)
    return next((advice for sign, advice in _SIGNS.items() if re.search(sign, said)), None)
