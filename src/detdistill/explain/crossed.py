"""Class scores that the labels ask for, and that teacher, students and crossed heads give.

Source: CrossKD, figure 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from operator import or_
from typing import cast

import torch

from detdistill.evaluate.conflict import discrepancy
from detdistill.evaluate.scores import cell_scores, wanted_scores
from detdistill.explain.figure import Figure
from detdistill.explain.parts import sheets
from detdistill.explain.parts.sheets import Map
from detdistill.explain.subject import Subject, View
from detdistill.levels import Levels
from detdistill.methods.crosskd import CrossKD
from detdistill.structures import EVERYTHING, DensePredictions

_SCORE = "best class score"


def figures(subject: Subject) -> Iterator[Figure]:
    """One sheet per picture."""
    sheets.needs_cells(subject)
    crossing = _crossing(subject)
    reads = reduce(or_, (method.reads for method in crossing.values()), EVERYTHING)
    for views in sheets.views_of(subject, subject.students, reads):
        yield sheets.figure(
            next(iter(views.values())),
            _maps(subject, views, crossing),
            subject.detector(subject.students[0]).spec.strides,
            group="crossed",
            title="Class scores that the labels ask for and that teacher and students give",
            caption="Where labels and teacher differ, a student that imitates the teacher with its "
            "own scores is pulled two ways. CrossKD lets only the crossed scores, which the "
            "teacher's head gives to the student's features, imitate the teacher; they should "
            "look like the teacher's, and the student's own may look like the labels.",
            source="CrossKD, figure 2",
        )


def _crossing(subject: Subject) -> dict[str, CrossKD]:
    """By student, the method with which one-stage features go through the teacher's head."""
    return {
        label: method
        for label in subject.distilled
        for method in subject.methods(label).values()
        if isinstance(method, CrossKD) and method.place.family == "dense"
    }


def _maps(
    subject: Subject, views: Mapping[str, View], crossing: Mapping[str, CrossKD]
) -> list[Map]:
    """Labels, teacher, where these differ, then each student's own and crossed scores."""
    step = next(iter(views.values())).step
    labels = wanted_scores(step.student.dense, step.targets)
    teacher = cell_scores(step.teacher.dense)
    maps = [
        _best("labels", labels),
        _best(subject.teacher, teacher),
        Map(label="their difference", levels=discrepancy(labels, teacher), unit=_SCORE),
    ]
    for label, view in views.items():
        maps.append(_best(label, cell_scores(view.step.student.dense)))
        if label in crossing:
            with torch.no_grad():
                said = cast("DensePredictions", crossing[label].predicted(view.step))
            maps.append(_best(f"{label}, crossed", cell_scores(said)))
    return maps


def _best(label: str, scores: Levels) -> Map:
    """The surest class of each cell: (1, K, H, W) per level."""
    return Map(label=label, levels=tuple(level.amax(dim=1) for level in scores), unit=_SCORE)
