"""Runs the command line as a user does."""

import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import detdistill as package

MICRO = [
    *("--data", "shapes:tiny", "--images", "32", "--steps", "3", "--batch_size", "4"),
    *("--optimizer.warmup_steps", "1", "--log_every", "1"),
]
"""A training of a second."""

SOURCE = Path(package.__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str
    cpu_seconds: float


def detdistill(*words: object, cwd: Path | None = None) -> Outcome:
    return python("-m", "detdistill", *words, cwd=cwd)


def python(*words: object, cwd: Path | None = None) -> Outcome:
    before = _cpu_seconds()
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(SOURCE)},
    )
    return Outcome(done.returncode, done.stdout, done.stderr, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
