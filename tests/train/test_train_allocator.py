from __future__ import annotations

import sys

import pytest
import torch

from detdistill.train.allocator import keep_freed_memory

ROUNDS = 20
NUMBERS = 4_000_000
"""16 MB of float32, far more than what glibc keeps of itself."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
def test_kept_memory_is_not_handed_out_anew() -> None:
    keep_freed_memory(keep=False)
    before = _new_pages()
    keep_freed_memory(keep=True)
    torch.ones(NUMBERS)
    assert _new_pages() < before / 10


def _new_pages() -> int:
    """Pages that the system had to find for tensors that are dropped one after the other."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(ROUNDS):
        torch.ones(NUMBERS)
    found: int = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return found
