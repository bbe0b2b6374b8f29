"""How much of what teachers say stands against the labels, by how far the two are apart.

Source: CrossKD, figure 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from detdistill.evaluate.conflict import conflicts, counted_cells, discrepancy, positive_cells
from detdistill.evaluate.scores import cell_scores, wanted_scores
from detdistill.explain.figure import Figure, Row
from detdistill.explain.parts import sheets
from detdistill.explain.subject import Subject, View
from detdistill.show import colors

_PICTURES = 100
_THRESHOLDS = [round(0.05 * n, 2) for n in range(1, 20)]

Shares = Mapping[str, list[float]]
"""Cells in conflict over positive cells at each of `_THRESHOLDS`, by teacher."""


def figures(subject: Subject) -> Iterator[Figure]:
    """One figure for all teachers."""
    sheets.needs_cells(subject)
    student = subject.students[-1]
    _, spec = subject.specs(student)
    reasons = {label: sheets.apart(subject.detector(label).spec, spec) for label in subject.rivals}
    teachers = [subject.teacher, *(label for label, reason in reasons.items() if not reason)]
    shares = _shares(subject, student, teachers)
    half = "; ".join(f"{label} {of[_THRESHOLDS.index(0.5)]:.2f}" for label, of in shares.items())
    left_out = "".join(f" Left out is {n}: {reason}" for n, reason in reasons.items() if reason)
    yield Figure(
        name="conflict",
        title="Cells in which teacher and labels ask different things of the student",
        caption="Cells whose class score is further from the label's than the discrepancy, as a "
        f"share of the cells that have an object, over {len(subject.first(_PICTURES))} pictures; "
        "lower is better: a student that imitates the teacher with its own predictions is pulled "
        f"two ways there. At a discrepancy of 0.5: {half}.{left_out}",
        source="CrossKD, figure 3",
        alt=f"A falling line per teacher. At a discrepancy of 0.5: {half}.",
        rows=list(_rows(shares)),
        draw=lambda: _draw(shares),
    )


def _shares(subject: Subject, student: str, teachers: Sequence[str]) -> Shares:
    thresholds = torch.tensor(_THRESHOLDS)
    found = dict.fromkeys(teachers, torch.zeros(len(thresholds)))
    positive = 0
    with torch.no_grad():
        for view in subject.views(student, positions=subject.first(_PICTURES)):
            said, targets = view.step.student.dense, view.step.targets
            positive += sum(int(level.sum()) for level in positive_cells(said, targets))
            for label in teachers:
                found[label] = found[label] + _conflicts(subject, label, view, thresholds)
    return {label: (count / max(1, positive)).tolist() for label, count in found.items()}


def _conflicts(subject: Subject, teacher: str, view: View, thresholds: Tensor) -> Tensor:
    """(T,) cells of a picture in which a teacher stands against the labels."""
    said, targets = view.step.student.dense, view.step.targets
    batch = view.batch
    taught = view.step.teacher
    if teacher != subject.teacher:
        taught = subject.detector(teacher)(batch.images, batch.truth.sizes)
    apart = discrepancy(wanted_scores(said, targets), cell_scores(taught.dense))
    return conflicts(apart, counted_cells(said, targets), thresholds.to(apart[0])).cpu()


def _rows(shares: Shares) -> Iterator[Row]:
    for label, of_teacher in shares.items():
        for threshold, share in zip(_THRESHOLDS, of_teacher, strict=True):
            yield {"teacher": label, "discrepancy": threshold, "share": share}


def _draw(shares: Shares) -> Drawing:
    drawing = Drawing(figsize=(6.4, 3.6))
    axes = drawing.subplots()
    for number, (label, of_teacher) in enumerate(shares.items()):
        seen = [share or math.nan for share in of_teacher]  # a logarithm has no place for 0
        axes.plot(_THRESHOLDS, seen, color=colors.of(number), marker="o", ms=4, label=label)
    axes.set(
        xlabel="discrepancy between the teacher's class score and the label's",
        ylabel="conflict cells / positive cells",
        yscale="log",
    )
    axes.grid(visible=True)
    axes.legend()
    return drawing
