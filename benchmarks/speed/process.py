"""Prints what CrossKD steps of the reference size take in a process of their own, as JSON.

Milliseconds of a step, and the most memory of the process in MiB, before there is anything but
modules and at the end; `--no-keep` leaves to the C library what becomes of the memory that tensors
free.
"""

from __future__ import annotations

import argparse
import json
from itertools import repeat

from accelerate import Accelerator
from benchmarks.speed.sizes import REFERENCE, SIZES
from benchmarks.speed.timing import CLOCKS, Spread, in_turns

from detdistill.methods import combine
from detdistill.train import engine
from detdistill.train.environment import peak_memory_mb
from detdistill.train.experiment import Experiment
from detdistill.train.step import TrainStep
from detdistill.train.trainer import Trainer

STEPS = 8
MIB_PER_MB = 1e6 / 2**20


def main() -> None:
    """Takes the steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--no-keep", dest="keep", action="store_false")
    experiment = SIZES[REFERENCE].experiment(keep_memory=parser.parse_args().keep)
    running = engine.start(experiment)
    modules = _mib(running)
    trainer, batches = _trainer(experiment, running), repeat(SIZES[REFERENCE].batch())
    times = in_turns({"step": lambda: trainer.advance(batches)}, STEPS, CLOCKS["wall"])
    found = {
        "milliseconds": Spread.of(times["step"]).median,
        "modules_mib": modules,
        "mib": _mib(running),
    }
    print(json.dumps(found))  # noqa: T201 - for who started this


def _trainer(experiment: Experiment, running: Accelerator) -> Trainer:
    """As a training makes it: of the teacher, nothing is left but what runs."""
    size = SIZES[REFERENCE]
    student, teacher = (size.detector("gfl", name) for name in (size.student, size.teacher))
    step = TrainStep(student, teacher, combine.parse("crosskd"), fold=experiment.fold_teacher)
    return Trainer(step, experiment, running)


def _mib(running: Accelerator) -> int:
    """The most memory of the process until now."""
    return round((peak_memory_mb(running.device) or 0.0) * MIB_PER_MB)


if __name__ == "__main__":
    main()
