"""The official implementation's work, done with each lever of speed: how many times as fast.

It was timed elsewhere. How much faster or slower this machine is, the bare networks tell, which
both have: contiguous, with norms apart, and without gradients.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.speed import bare
from benchmarks.speed.overhead import Bench
from benchmarks.speed.sizes import Size
from benchmarks.speed.timing import Case, Clock, Spread, in_turns
from torch import nn

from detdistill.detectors import Detector
from detdistill.evaluate.run import PREDICTIONS, evaluating
from detdistill.structures import EVERYTHING, Batch, DetectorOutput
from detdistill.train.step import TrainStep
from detdistill.train.trainer import Trainer

LEVERS: Mapping[str, Mapping[str, object]] = {
    "defaults": {},
    "without Winograd": {"winograd": False},
    "without channels-last": {"channels_last": False},
    "without folding": {"fold_teacher": False},
    "bf16": {"precision": "bf16"},
}
PLAIN: Mapping[str, object] = {"winograd": False, "channels_last": False, "fold_teacher": False}
"""As the official implementation runs its networks."""
BARE = ("student, forward", "teacher, forward")
COMPILED: Mapping[str, Mapping[str, object]] = {
    "compiled": {"compile": True},
    "bf16, compiled": {"precision": "bf16", "compile": True},
}
CACHED: Mapping[str, Mapping[str, object]] = {
    "cached teacher": {},
    "bf16, cached teacher": {"precision": "bf16"},
}
"""With a teacher that has seen the pictures before, read from disk."""
DISTILLED = ("crosskd step", "ld step")
OFFICIAL: Mapping[str, float] = {
    "student, forward": 340,
    "student step": 992,
    "teacher, forward": 462,
    "crosskd step": 1625,
    "ld step": 1477,
    "predict": 382,
    "decode and suppress": 42,
}
"""Milliseconds of the authors' code in torch 2.1 on an idle two-core AMD EPYC with AVX-512, two
threads: GFL, R18 and R50, 80 classes, 2 x 3 x 320 x 320, 7 objects per image, without data."""
OFFICIAL_MEMORY = 1191
"""MiB that the process of its CrossKD step held at most."""
PROCESSES: Mapping[str, tuple[str, ...]] = {
    "kept for the next tensors": (),
    "left to the C library": ("--no-keep",),
}
"""What becomes of the memory that tensors free."""
TURNS = 3
FOUND = 0.0
"""Class logit of every prior, about, where suppression is timed: nearly all are candidates."""


def measure(size: Size, clock: Clock, levers: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """Milliseconds of each kind of work by lever, and what whole processes take, ready for JSON."""
    with tempfile.TemporaryDirectory() as folder:
        every = {
            **levers,
            "plain": PLAIN,
            **{name: {**s, "teacher_cache": f"{folder}/{name}"} for name, s in CACHED.items()},
        }
        wanted = {
            **dict.fromkeys(levers, tuple(OFFICIAL)),
            "plain": BARE,
            **dict.fromkeys(CACHED, DISTILLED),
        }
        cases = {
            f"{lever}/{work}": case
            for lever, settings in every.items()
            for work, case in _works(Bench.of(size, "gfl", **settings)).items()
            if work in wanted[lever]
        }
        times = in_turns(cases, size.rounds, clock)
    middles = {name: Spread.of(values).median for name, values in times.items()}
    slower = sum(middles[f"plain/{work}"] for work in BARE) / sum(OFFICIAL[work] for work in BARE)
    rows = [
        {
            "work": work,
            "lever": lever,
            "milliseconds": (middle := middles[f"{lever}/{work}"]),
            "official": official,
            "times_as_fast": round(slower * official / middle, 3),
        }
        for work, official in OFFICIAL.items()
        for lever in every
        if f"{lever}/{work}" in times
    ]
    return {
        "rows": rows,
        "slower": round(slower, 3),
        "processes": _processes(),
        "official_memory_mib": OFFICIAL_MEMORY,
    }


def _works(bench: Bench) -> dict[str, Case]:
    """What the official implementation was timed at."""
    alone, crosskd, ld = (bench.trainer(methods) for methods in ("", "crosskd", "ld"))
    batch = alone.place(bench.size.batch())
    finder = _finder(bench)
    output = _forward(finder, batch, bench)
    assert crosskd.step.teacher  # noqa: S101 - there is one where there are methods
    return {
        "student, forward": partial(_forward, finder, batch, bench),
        "student step": bench.advance(alone),
        "teacher, forward": partial(
            bare.forward, crosskd.step.teacher, batch, EVERYTHING, bench.autocast
        ),
        "crosskd step": bench.advance(crosskd),
        "ld step": bench.advance(ld),
        "predict": partial(_predict, finder, batch, bench),
        "decode and suppress": partial(finder.detect, output, batch.truth.sizes),
    }


def _finder(bench: Bench) -> Detector:
    """A student that takes nearly every prior for something, laid out as it is trained."""
    found = bench.size.detector("gfl", bench.size.student)
    nn.init.constant_(found.get_parameter("head.cls.bias"), FOUND)
    Trainer(TrainStep(found), bench.experiment, bench.engine)
    return found


def _forward(detector: Detector, batch: Batch, bench: Bench) -> DetectorOutput:
    with evaluating(detector), bench.autocast():
        output: DetectorOutput = detector(batch.images, batch.truth.sizes, PREDICTIONS)
        return output


def _predict(detector: Detector, batch: Batch, bench: Bench) -> None:
    detector.detect(_forward(detector, batch, bench), batch.truth.sizes)


def _processes() -> dict[str, dict[str, float]]:
    """What CrossKD steps of the reference take in processes of their own, in turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in PROCESSES}
    for _ in range(TURNS):
        for name, options in PROCESSES.items():
            command = [sys.executable, "-m", "benchmarks.speed.process", *options]
            said = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
            found[name].append(json.loads(said.stdout))
    return {
        name: {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        for name, turns in found.items()
    }
