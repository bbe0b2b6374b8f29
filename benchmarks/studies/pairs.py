"""Students and teachers of different kinds: small twins of CrossKD's tables 7 and 8."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.studies.arms import arm, fitting
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Results, Table

ASSIGNERS = "CrossKD, table 7 (ResNet-50 from ResNet-101, COCO)"
BACKBONES = "CrossKD, table 8 (COCO)"


def assigners(budget: Budget) -> Iterator[Table]:
    """GFL from teachers that assign labels otherwise."""
    student = budget.student("gfl-quick-w8")
    for name, kd, crosskd in (("ATSS", 39.7, 42.1), ("RetinaNet", 30.3, 41.2)):
        table = Table(
            title=f"GFL from {name}",
            student=student,
            teacher=budget.teacher(f"{name.lower()}-quick-w32"),
            published_alone=40.2,
            source=ASSIGNERS,
        )
        rows = [arm("kd", published=kd), arm("crosskd", published=crosskd), arm("pkd")]
        yield fitting(table, rows)


def backbones(budget: Budget) -> Iterator[Table]:
    """RetinaNet on one kind of backbone from RetinaNet on another."""
    for title, student, teacher, (alone, pkd, crosskd) in (
        ("MobileNetV2 from ResNet-50", "mobilenetv2-w32", "r50-w16", (30.9, 33.2, 34.1)),
        ("ResNet-50 from Swin-T", "r50-w8", "swin-t-w32", (36.5, 37.2, 38.0)),
    ):
        table = Table(
            title=f"RetinaNet on {title}",
            student=budget.student(f"retinanet-quick-{student}"),
            teacher=budget.teacher(f"retinanet-quick-{teacher}"),
            published_alone=alone,
            source=BACKBONES,
        )
        yield fitting(table, [arm("pkd", published=pkd), arm("crosskd", published=crosskd)])


def study(budget: Budget, _results: Results) -> Iterator[list[Table]]:
    """All pairs."""
    yield [*assigners(budget), *backbones(budget)]
