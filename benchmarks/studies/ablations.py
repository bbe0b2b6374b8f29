"""What the parts of a method contribute: GFL, with the rows of the papers' own tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.studies.arms import arm
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Arm, Results, Table

CROSSKD = "GFL-R18 from GFL-R50, COCO"
SHALLOW = "towers have four blocks there and two here, so the rows are its cuts 0, 3 and 4"
TID = "GFL-R50 from GFL-R101, COCO"


def study(budget: Budget, _results: Results) -> Iterator[list[Table]]:
    """All tables, with one student and one teacher."""
    yield [
        Table(
            title=title,
            student=budget.student("gfl-quick-w8"),
            teacher=budget.teacher("gfl-quick-w32"),
            arms=tuple(arms),
            published_alone=alone,
            source=source,
        )
        for title, source, alone, arms in (*_crosskd(), *_bckd())
    ]


Rows = tuple[str, str, float | None, Sequence[Arm]]
"""Title, source, AP of the student alone there, and the rows."""


def _crosskd() -> Iterator[Rows]:
    """Where to cross, which branch, and prediction mimicking beside it."""
    yield (
        "CrossKD: where to cross",
        f"CrossKD, table 1 ({CROSSKD}); {SHALLOW}",
        35.8,
        [
            arm("crosskd", "at the neck", cut=0, published=38.2),
            arm("crosskd", "before the last block", published=38.7),
            arm("crosskd", "after the last block", cut=2, published=38.2),
            arm("ld", "prediction mimicking (ld)", published=37.8),
        ],
    )
    yield (
        "CrossKD: which branch",
        f"CrossKD, table 3 ({CROSSKD}); prediction mimicking is LD there and `kd` here",
        35.8,
        [
            arm("kd", "kd, classes", box_weight=0.0, published=37.3),
            arm("kd", "kd, boxes", cls_weight=0.0, published=36.8),
            arm("kd", "kd, both", published=37.8),
            arm("crosskd", "crosskd, classes", box_weight=0.0, published=37.7),
            arm("crosskd", "crosskd, boxes", cls_weight=0.0, published=37.2),
            arm("crosskd", "crosskd, both", published=38.7),
        ],
    )
    yield (
        "CrossKD: beside prediction mimicking",
        f"CrossKD, table 4 ({CROSSKD})",
        35.8,
        [
            arm("crosskd", published=38.7),
            arm("ld", published=37.8),
            arm("crosskd+ld", published=38.1),
        ],
    )


def _bckd() -> Iterator[Rows]:
    """Classes, boxes, both."""
    yield (
        "BCKD: classes and boxes",
        "",
        None,
        [
            arm("bckd", "classes", box_weight=0.0),
            arm("bckd", "boxes", cls_weight=0.0),
            arm("bckd", "both"),
        ],
    )
