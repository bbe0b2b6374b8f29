"""What the parts of a method contribute: GFL, with the rows of the papers' own tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.studies.arms import row
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Results, Table

from detdistill import recipes


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One table of a paper, by the names of its recipes."""

    title: str
    alone: str | None = None
    """The recipe of the student alone."""
    rows: Mapping[str, str]
    """The others, and what they are called here."""
    source: str = ""


ABLATIONS = (
    Ablation(
        title="TID: classification and regression",
        alone="tid/gfl-r50-alone",
        rows={
            "tid/gfl-r50-cls": "classification score",
            "tid/gfl-r50-reg": "regression score",
            "tid/gfl-r50": "both",
        },
        source="TID, table 3 (GFL-R50 from GFL-R101, COCO)",
    ),
    Ablation(
        title="TID: thresholds or the overlap itself",
        alone="tid/gfl-r50-alone",
        rows={"tid/gfl-r50-iou": "overlap itself", "tid/gfl-r50": "thresholds"},
        source="TID, table 4 (GFL-R50 from GFL-R101, COCO)",
    ),
    Ablation(
        title="TID: key and weak areas",
        alone="tid/gfl-r50-alone",
        rows={
            "tid/gfl-r50-key": "key areas",
            "tid/gfl-r50-weak": "weak areas",
            "tid/gfl-r50": "both",
        },
        source="TID, table 5 (GFL-R50 from GFL-R101, COCO); which column is which is our reading",
    ),
    Ablation(
        title="DeFeat: objects and background of the neck",
        alone="defeat/retinanet-r50-alone",
        rows={
            "shapes/gfl-defeat-objects": "objects",
            "shapes/gfl-defeat-background": "background",
            "defeat/retinanet-r50-neck": "both, apart",
            "defeat/retinanet-r50-all-neck": "all cells together",
        },
        source="DeFeat, table 1 (RetinaNet-R50 from RetinaNet-R152, COCO), which has two of them",
    ),
    Ablation(
        title="BCKD: classes and boxes",
        rows={
            "bckd/gfl-r50-cls": "classes",
            "bckd/gfl-r50-box": "boxes",
            "bckd/gfl-r50": "both",
        },
    ),
    Ablation(
        title="TBD (our reading): harmony and features",
        rows={
            "tbd/gfl-r50-harmony": "harmony distillation",
            "tbd/gfl-r50-feature": "task-decoupled features",
            "tbd/gfl-r50": "both",
        },
    ),
    Ablation(
        title="CrossKD: where to cross",
        alone="crosskd/gfl-r18-alone",
        rows={
            "crosskd/gfl-r18-cut-0": "at the neck",
            "crosskd/gfl-r18": "before the last block",
            "crosskd/gfl-r18-cut-4": "after the last block",
            "crosskd/gfl-r18-ld": "prediction mimicking (ld)",
        },
        source=(
            "CrossKD, table 1 (GFL-R18 from GFL-R50, COCO); towers have four blocks there and two "
            "here, so the rows are its cuts 0, 3 and 4"
        ),
    ),
    Ablation(
        title="CrossKD: which branch",
        alone="crosskd/gfl-r18-alone",
        rows={
            "crosskd/gfl-r18-ld-cls": "ld, classes",
            "crosskd/gfl-r18-ld-reg": "ld, boxes",
            "crosskd/gfl-r18-ld": "ld, both",
            "crosskd/gfl-r18-cls": "crosskd, classes",
            "crosskd/gfl-r18-reg": "crosskd, boxes",
            "crosskd/gfl-r18": "crosskd, both",
        },
        source="CrossKD, table 3 (GFL-R18 from GFL-R50, COCO)",
    ),
    Ablation(
        title="CrossKD: beside prediction mimicking",
        alone="crosskd/gfl-r18-alone",
        rows={
            "crosskd/gfl-r18": "crosskd",
            "crosskd/gfl-r18-ld": "ld",
            "crosskd/gfl-r18-with-ld": "crosskd and ld",
        },
        source="CrossKD, table 4 (GFL-R18 from GFL-R50, COCO)",
    ),
)


def study(budget: Budget, _results: Results) -> Iterator[list[Table]]:
    """All tables, with one student and one teacher."""
    yield [
        Table(
            title=ablation.title,
            student=budget.student("gfl-quick-w8"),
            teacher=budget.teacher("gfl-quick-w32"),
            arms=tuple(row(recipe, name) for recipe, name in ablation.rows.items()),
            published_alone=recipes.find(ablation.alone).paper.value if ablation.alone else None,
            source=ablation.source,
        )
        for ablation in ABLATIONS
    ]
