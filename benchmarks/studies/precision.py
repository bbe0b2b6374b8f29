"""Does a training in bf16 reach what one in float32 reaches? The same seeds, alone and taught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from benchmarks.studies.arms import arm
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Results, Table

Precision = Literal["fp32", "bf16"]
PRECISIONS: dict[Precision, str] = {"fp32": "float32", "bf16": "bf16"}


def study(budget: Budget, _results: Results) -> Iterator[list[Table]]:
    """One table for each precision; their teacher is the same, trained in float32."""
    yield [
        Table(
            title=f"Trained in {words}",
            student=replace(budget.student("gfl-quick-w8"), precision=precision),
            teacher=budget.teacher("gfl-quick-w32"),
            arms=(arm("crosskd"),),
        )
        for precision, words in PRECISIONS.items()
    ]
