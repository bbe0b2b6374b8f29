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
    atss = Table(
        title="GFL from ATSS",
        student=student,
        teacher=budget.teacher("atss-quick-w32"),
        published_alone=40.2,
        source=ASSIGNERS,
    )
    rows = [arm("kd", published=39.7), arm("crosskd", published=42.1), arm("pkd")]
    yield fitting(atss, rows)
    retinanet = Table(
        title="GFL from RetinaNet",
        student=student,
        teacher=budget.teacher("retinanet-quick-w32"),
        published_alone=40.2,
        source=ASSIGNERS,
    )
    rows = [arm("kd", published=30.3), arm("crosskd", published=41.2), arm("pkd")]
    yield fitting(retinanet, rows)


def backbones(budget: Budget) -> Iterator[Table]:
    """RetinaNet on one kind of backbone from RetinaNet on another."""
    mobile = Table(
        title="RetinaNet on MobileNetV2 from ResNet-50",
        student=budget.student("retinanet-quick-mobilenetv2-w32"),
        teacher=budget.teacher("retinanet-quick-r50-w16"),
        published_alone=30.9,
        source=BACKBONES,
    )
    rows = [arm("pkd", published=33.2), arm("crosskd", published=34.1)]
    yield fitting(mobile, rows)
    swin = Table(
        title="RetinaNet on ResNet-50 from Swin-T",
        student=budget.student("retinanet-quick-r50-w8"),
        teacher=budget.teacher("retinanet-quick-swin-t-w32"),
        published_alone=36.5,
        source=BACKBONES,
    )
    rows = [arm("pkd", published=37.2), arm("crosskd", published=38.0)]
    yield fitting(swin, rows)


def study(budget: Budget, _results: Results) -> Iterator[list[Table]]:
    """All pairs."""
    yield [*assigners(budget), *backbones(budget)]
