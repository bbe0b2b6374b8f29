"""A student of five classes, taught by a detector of eighty.

The teacher sees `shapes` as a COCO folder of the real form: eighty categories in no particular
order, their ids with gaps up to 90. Twelve of them are drawn. The student sees the same pictures
with five classes labelled, so the other seven are background to it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.studies.arms import arm, fitting
from benchmarks.studies.budgets import Budget
from benchmarks.studies.study import Results, Table

from detdistill import data
from detdistill.data import coco
from detdistill.files import read_json, write_json

EIGHTY = 80
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""Ids up to 90 that COCO does not use."""
FIVE = ("solid circle", "hollow circle", "striped square", "hollow triangle", "solid star")
UNKNOWN = ("hollow circle", "solid star")
"""What the second table's teacher is not asked about."""

Content = Mapping[str, Any]


def folders(root: Path) -> tuple[Path, Path]:
    """Where the teacher's and the student's data lie."""
    return root / "shapes-of-eighty", root / "shapes-of-five"


def write(root: Path, level: str, **counts: int) -> None:
    """Writes a level of `shapes` for the teacher, and the same pictures for the student."""
    teacher, student = folders(root)
    data.shapes.write(teacher, level, **counts)
    shutil.copytree(teacher, student)
    for part in ("train", "val", "test"):
        theirs, mine = (coco.annotation_file(folder, part) for folder in (teacher, student))
        content = read_json(theirs)
        five = {name: number for number, name in enumerate(FIVE, start=1)}
        for file, ids in ((theirs, of_eighty(_names(content).values())), (mine, five)):
            write_json(file, renumbered(content, ids), compact=True)


def of_eighty(names: Collection[str], *, seed: int = 0) -> dict[str, int]:
    """Names, and as many others as make eighty, each with an id of COCO's, in a random order."""
    every = [*names, *(f"other {number}" for number in range(EIGHTY - len(names)))]
    ids = sorted(set(range(1, 91)) - GAPS)
    return dict(zip(np.random.default_rng(seed).permutation(every).tolist(), ids, strict=True))


def renumbered(content: Content, ids: Mapping[str, int]) -> dict[str, Any]:
    """Annotations in COCO's format with these categories; others are not labelled."""
    names = _names(content)
    annotations = [
        {**entry, "category_id": ids[names[entry["category_id"]]]}
        for entry in content["annotations"]
        if names[entry["category_id"]] in ids
    ]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {**content, "annotations": annotations, "categories": categories}


def study(budget: Budget, results: Results) -> Iterator[list[Table]]:
    """The teacher knows what the student is to know; then it is silent about two classes."""
    theirs, mine = folders(results.pool.root)
    if not mine.exists():
        write(results.pool.root, budget.data.partition(":")[2])
    table = Table(
        title="Five classes from eighty",
        student=replace(budget.student("gfl-quick-w8"), data=f"coco:{mine}"),
        teacher=replace(budget.teacher("gfl-quick-w32"), data=f"coco:{theirs}"),
        rated=False,
    )
    silent: dict[str, str | None] = dict.fromkeys(UNKNOWN)
    three = replace(table, title="Three classes of five from eighty", class_map=silent)
    full, partly = (fitting(each, map(arm, ("kd", "crosskd", "pkd"))) for each in (table, three))
    yield [full]
    yield [full, partly]


def _names(content: Content) -> dict[int, str]:
    return {category["id"]: category["name"] for category in content["categories"]}
