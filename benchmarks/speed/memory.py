"""Prints the most memory that a process needs for CrossKD steps of the reference size, in MiB."""

from __future__ import annotations

import torch
from benchmarks.speed.overhead import Bench
from benchmarks.speed.sizes import REFERENCE, SIZES

from detdistill.train.environment import peak_memory_mb

STEPS = 3
MIB_PER_MB = 1e6 / 2**20


def main() -> None:
    """Takes the steps."""
    bench = Bench.of(SIZES[REFERENCE], "gfl")
    advance = bench.advance(bench.trainer("crosskd"))
    for _ in range(STEPS):
        advance()
    peak = peak_memory_mb(torch.device(bench.engine.device)) or 0.0
    print(round(peak * MIB_PER_MB))  # noqa: T201 - for who started this


if __name__ == "__main__":
    main()
