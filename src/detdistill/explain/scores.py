"""Class scores cell by cell: their sums, and how far a student's are from the teacher's.

Source: BCKD, figures 1 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator

from detdistill.evaluate.scores import cell_scores, score_errors, score_sums
from detdistill.explain.figure import Figure
from detdistill.explain.parts import sheets
from detdistill.explain.parts.sheets import Map
from detdistill.explain.subject import Subject


def figures(subject: Subject) -> Iterator[Figure]:
    """Two sheets per picture: sums of all detectors, errors of all students."""
    sheets.needs_cells(subject)
    strides = subject.detector(subject.students[0]).spec.strides
    for views in sheets.views_of(subject, subject.students):
        view = next(iter(views.values()))
        teacher = cell_scores(view.step.teacher.dense)
        students = {label: cell_scores(v.step.student.dense) for label, v in views.items()}
        sums = [
            Map(label=label, levels=score_sums(scores), unit="sum of the class scores")
            for label, scores in ({subject.teacher: teacher} | students).items()
        ]
        errors = [
            Map(
                label=label, levels=score_errors(scores, teacher), unit="error, summed over classes"
            )
            for label, scores in students.items()
        ]
        yield sheets.figure(
            view,
            sums,
            strides,
            group="score-sums",
            title="Sum of the class scores in every cell, of every detector",
            caption="Detectors score every class for itself, so the scores of a cell may add up "
            "to anything: to almost nothing on background, to more on objects. A student should "
            "have the teacher's sums; a softmax over the classes, which makes every sum 1, cannot "
            "teach them.",
            source="BCKD, figure 1",
        )
        yield sheets.figure(
            view,
            errors,
            strides,
            group="score-errors",
            title="How far each student's class scores are from the teacher's, cell by cell",
            caption="Absolute differences from the teacher's scores, summed over the classes; "
            f"darker is better. {sheets.in_words(errors)}",
            source="BCKD, figure 3",
        )
