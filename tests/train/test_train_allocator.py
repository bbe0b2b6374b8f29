from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from detdistill.train.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    kept_for_the_gradient = [torch.ones(2_000_000) for _ in range(16)]
step()
before = pages()
for _ in range(5):
    step()
print(pages() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
def test_kept_memory_is_not_handed_out_anew() -> None:
    assert _new_pages("keep") < _new_pages("leave") / 2


def _new_pages(what: str) -> int:
    """Pages that the system had to find for later steps: 128 MB are held in each, then dropped."""
    found = subprocess.run(
        [sys.executable, "-c", COUNT, what], capture_output=True, text=True, check=True
    )
    return int(found.stdout)
