from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

STEP = """
import ctypes, sys, torch
from detdistill.train.allocator import keep_freed_memory
class Account(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "heap", "free_blocks", "fast_blocks", "mapped_blocks", "mapped",
        "unused", "fast", "in_use", "free", "could_be_given_back")]
account_of = ctypes.CDLL(None).mallinfo2
account_of.restype = Account
if sys.argv[1] == "keep":
    keep_freed_memory()
held_for_the_gradient = [torch.ones(16 * 2**20) for _ in range(3)]
del held_for_the_gradient
print(account_of().free // 2**20)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="only glibc can be told, and asked",
)
def test_what_a_step_frees_stays_with_the_process() -> None:
    assert _free_mebibytes_after_a_step_of_192("keep") >= 192
    assert _free_mebibytes_after_a_step_of_192("leave") < 64


def _free_mebibytes_after_a_step_of_192(what: str) -> int:
    """What lies ready for the next step after one that held three blocks of 64 MiB.

    Blocks of more than 32 MiB always come straight from the system if the C library is left alone.
    """
    found = subprocess.run(
        [sys.executable, "-c", STEP, what], capture_output=True, text=True, check=True
    )
    return int(found.stdout)
