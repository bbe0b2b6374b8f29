"""What a lack of memory looks like, and what to do about it."""

from __future__ import annotations

_SMALLER = (
    "The memory is not enough: take a smaller --batch_size with more --accumulate, a smaller "
    "--resize, or a smaller detector."
)
_SHARED = (
    "A process that loads pictures was ended by the system, mostly for lack of (shared) memory: "
    "take fewer --workers, or in a container a larger shared memory, as docker's --shm-size 8g."
)
_SIGNS = {
    "out of memory": _SMALLER,
    "can't allocate memory": _SMALLER,
    "DataLoader worker": _SHARED,
    "shared memory": _SHARED,
}
"""What the libraries say."""


def advice(error: RuntimeError | MemoryError) -> str | None:
    """What to do about an error that comes of too little memory; None for any other."""
    if isinstance(error, MemoryError):
        return _SMALLER
    said = str(error)
    return next((advice for sign, advice in _SIGNS.items() if sign in said), None)
