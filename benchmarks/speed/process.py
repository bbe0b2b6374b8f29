"""Prints what CrossKD steps of the reference size take in a process of their own, as JSON.

Milliseconds of a step, and the most memory of the process in MiB; `--no-keep` leaves to the C
library what becomes of the memory that tensors free.
"""

from __future__ import annotations

import argparse
import json

import torch
from benchmarks.speed.overhead import Bench
from benchmarks.speed.sizes import REFERENCE, SIZES
from benchmarks.speed.timing import CLOCKS, Spread, in_turns

from detdistill.train.environment import peak_memory_mb

STEPS = 8
MIB_PER_MB = 1e6 / 2**20


def main() -> None:
    """Takes the steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--no-keep", dest="keep", action="store_false")
    bench = Bench.of(SIZES[REFERENCE], "gfl", keep_memory=parser.parse_args().keep)
    times = in_turns({"step": bench.advance(bench.trainer("crosskd"))}, STEPS, CLOCKS["wall"])
    peak = peak_memory_mb(torch.device(bench.engine.device)) or 0.0
    found = {"milliseconds": Spread.of(times["step"]).median, "mib": round(peak * MIB_PER_MB)}
    print(json.dumps(found))  # noqa: T201 - for who started this


if __name__ == "__main__":
    main()
