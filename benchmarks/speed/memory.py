"""Prints what CrossKD steps of the reference size take in a process of their own, as JSON.

Milliseconds of a step, and the most memory of the process in MiB; `--no-keep` gives what tensors
free back to the system.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from benchmarks.speed.overhead import Bench
from benchmarks.speed.sizes import REFERENCE, SIZES
from benchmarks.speed.timing import Case

from detdistill.train.environment import peak_memory_mb

WARM_UP, STEPS = 2, 8
MIB_PER_MB = 1e6 / 2**20


def main() -> None:
    """Takes the steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--no-keep", dest="keep", action="store_false")
    advance, device = _training(keep=parser.parse_args().keep)
    took = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        advance()
        took.append(time.perf_counter() - start)
    peak = peak_memory_mb(device) or 0.0
    found = {
        "milliseconds": round(1e3 * statistics.median(took[WARM_UP:]), 1),
        "mib": round(peak * MIB_PER_MB),
    }
    print(json.dumps(found))  # noqa: T201 - for who started this


def _training(*, keep: bool) -> tuple[Case, torch.device]:
    """Its steps, and where they run; as in any training, what was folded is not kept beside it."""
    bench = Bench.of(SIZES[REFERENCE], "gfl", keep_memory=keep)
    return bench.advance(bench.trainer("crosskd")), bench.engine.device


if __name__ == "__main__":
    main()
