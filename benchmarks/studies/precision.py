"""Does a training in bf16 reach what one in float32 reaches? The same seeds, alone and taught.

Detectors as small as these would not be convolved by Winograd's algorithm. To see what its
rounding does, it is taken wherever it can be, at a loss of time, unless it is switched off; so
these runs are not those of other studies, and want a folder of their own (`--runs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from benchmarks.studies.arms import arm
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Results, Table

from detdistill import winograd

WAYS: Mapping[str, Mapping[str, Any]] = {
    "in float32": {"winograd": False},
    "in bf16": {"winograd": False, "precision": "bf16"},
    "in bf16, with Winograd's convolutions wherever they can be": {"precision": "bf16"},
}


def study(budget: Budget, _results: Results) -> Iterator[list[Table]]:
    """One table for each way of computing; their teacher is the same, trained in float32."""
    with _winograd_everywhere():
        yield [
            Table(
                title=f"Trained {words}",
                student=replace(budget.student("gfl-quick-w8"), **settings),
                teacher=budget.teacher("gfl-quick-w32"),
                arms=(arm("crosskd"),),
            )
            for words, settings in WAYS.items()
        ]


@contextmanager
def _winograd_everywhere() -> Iterator[None]:
    usual, winograd.WORTH_IT = winograd.WORTH_IT, 0
    try:
        yield
    finally:
        winograd.WORTH_IT = usual
