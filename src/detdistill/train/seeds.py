"""Random numbers as a function of where one is, so that there is no random state to save."""

from __future__ import annotations

from hashlib import blake2b


def derived(*position: int | str) -> int:
    """A 32-bit seed for a position, such as (seed, step, rank); the same on every machine."""
    digest = blake2b(repr(position).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
