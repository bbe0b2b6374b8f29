"""What training costs: networks, detectors, methods, beside the official implementation.

`python -m benchmarks.speed` (or `make bench`) writes `results.json` and `results.md` to
`runs/bench`. Everything of one table is timed in turns, so that its ratios hold on a machine whose
speed varies; milliseconds want an idle one. `--quick` looks at the smallest size for a minute.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import loading
from benchmarks.speed import evaluation, overhead, pages, targets
from benchmarks.speed.sizes import REFERENCE, SIZES
from benchmarks.speed.timing import CLOCKS

from detdistill.files import write_json, write_text
from detdistill.train import environment

USUAL = ("demo", "320", "coco")
SMALLEST = "demo"
WITH_OBJECTS = ("crosskd", "ld", "tid", "gid", "fgd")
"""Those that are also timed with more objects."""
AT_LARGE = ("crosskd", "tid", "gid")
"""Those that are timed at the largest size."""
OBJECTS = (7, 100, 300, 500)
GROWTH_ROUNDS = 3


def main() -> None:
    """Measures and writes."""
    options = _options()
    found = _measured(options)
    write_json(options.out / "results.json", found)
    write_text(options.out / "results.md", pages.page(found))
    print(pages.page(found))  # noqa: T201 - the tables are the point


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    clock = CLOCKS[options.clock]
    sizes = {name: _size(name, options) for name in options.sizes}
    first = REFERENCE if REFERENCE in sizes else options.sizes[0]
    found: dict[str, Any] = {"sizes": sizes}
    if REFERENCE in sizes and not options.methods:
        found |= {
            "growth": _growth(options),
            "evaluation": evaluation.measure(clock),
            "loading": loading.rows(),
        }
    if options.targets:
        levers = {**targets.LEVERS, **(targets.COMPILED if options.compile else {})}
        found["targets"] = targets.measure(SIZES[REFERENCE], clock, levers)
    reference = sizes[first]["gfl"]
    return {
        "machine": environment.describe(),
        "clock": options.clock,
        "reference": {"size": first, "family": "gfl"},
        **{
            key: reference[key]
            for key in ("methods", "detector_overhead", "detector_overhead_spread")
        },
        **found,
    }


def _size(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All families at one size."""
    size = SIZES[name]
    size = replace(size, rounds=options.rounds or size.rounds)
    usual = AT_LARGE if max(size.image) > max(SIZES[REFERENCE].image) else ()
    wanted = options.methods or usual
    return {
        family: overhead.measure(
            size, family, wanted, CLOCKS[options.clock], precision=options.precision
        )
        for family in size.families
    }


def _growth(options: argparse.Namespace) -> dict[str, Any]:
    """Overheads with few and with many objects in an image."""
    size = replace(SIZES[REFERENCE], rounds=min(GROWTH_ROUNDS, options.rounds or GROWTH_ROUNDS))
    return {
        str(count): overhead.measure(
            replace(size, objects=count),
            "gfl",
            WITH_OBJECTS,
            CLOCKS[options.clock],
            memory=False,
            precision=options.precision,
        )
        for count in OBJECTS
    }


def _options() -> argparse.Namespace:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=summary)
    add = parser.add_argument
    add("--sizes", nargs="+", choices=tuple(SIZES), default=USUAL)
    add("--quick", action="store_true", help="the smallest size alone, a few rounds")
    add("--methods", nargs="+", help="names, also joined by a plus; all if missing")
    add("--rounds", type=int, help="how often everything is timed")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the overheads")
    add("--clock", choices=tuple(CLOCKS), default="wall")
    add("--no-targets", dest="targets", action="store_false", help="leave the levers out")
    add("--compile", action="store_true", help="also compiled, which takes minutes")
    add("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.targets = (SMALLEST,), False
        options.rounds = options.rounds or 3
    return options


if __name__ == "__main__":
    main()
