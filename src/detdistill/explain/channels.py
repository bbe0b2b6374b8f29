"""How far students' necks are from the teacher's in each channel, on objects and beside them.

Source: DeFeat, figure 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from detdistill.evaluate.channels import summed_distances
from detdistill.explain.figure import Figure, FigureUnavailableError, Row
from detdistill.explain.parts import charts
from detdistill.explain.subject import Subject, View
from detdistill.masks import object_cells
from detdistill.show.maps import level_name
from detdistill.structures import Reads, Spec

_PICTURES = 20
"""As many as in the paper."""
_PARTS = ("objects", "background")

Distances = Mapping[str, Tensor]
"""(C,) of each of `_PARTS`."""


def figures(subject: Subject) -> Iterator[Figure]:
    """A figure per level."""
    spec = _common(subject)
    found = {label: _distances(subject, label, spec.strides) for label in subject.students}
    for level, stride in enumerate(spec.strides):
        yield _figure(
            level_name(stride),
            {label: of[level] for label, of in found.items()},
            pictures=len(subject.first(_PICTURES)),
        )


def _common(subject: Subject) -> Spec:
    """The student's facts, if its neck can be compared with the teacher's."""
    teacher, student = (subject.detector(n).spec for n in (subject.teacher, subject.students[0]))
    if (teacher.channels, teacher.strides) != (student.channels, student.strides):
        raise FigureUnavailableError(
            f"The teacher's neck has {teacher.channels} channels at strides {teacher.strides}, the "
            f"student's {student.channels} at {student.strides}: they cannot be compared one by "
            "one."
        )
    return student


def _distances(subject: Subject, student: str, strides: tuple[int, ...]) -> list[Distances]:
    """Mean absolute differences, by level."""
    totals = [dict.fromkeys(_PARTS, torch.zeros(())) for _ in strides]
    counts = [dict.fromkeys(_PARTS, torch.zeros(())) for _ in strides]
    with torch.no_grad():
        for view in subject.views(student, Reads(), subject.first(_PICTURES)):
            for level, stride in enumerate(strides):
                for part, (total, count) in _summed(view, level, stride).items():
                    totals[level][part] = totals[level][part] + total.cpu()
                    counts[level][part] = counts[level][part] + count.cpu()
    return [
        {part: total[part] / count[part].clamp(min=1) for part in _PARTS}
        for total, count in zip(totals, counts, strict=True)
    ]


def _summed(view: View, level: int, stride: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Sums (C,) and numbers of cells () of one picture and level, by part."""
    student, teacher = view.step.student.neck[level], view.step.teacher.neck[level]
    height, width = student.shape[-2:]
    inside = object_cells(view.step.truth, (height, width), stride)
    parts = zip(_PARTS, (inside, ~inside), strict=True)
    return {part: summed_distances(student, teacher, cells) for part, cells in parts}


def _figure(level: str, found: Mapping[str, Distances], *, pictures: int) -> Figure:
    means = "; ".join(
        f"{label} {of['objects'].mean():.3g} on objects and {of['background'].mean():.3g} beside "
        "them"
        for label, of in found.items()
    )
    return Figure(
        name=f"channels-{level}",
        title=f"Distance of each channel of the neck from the teacher's, level {level}",
        caption=f"Mean absolute difference over the cells of the first {pictures} pictures; lower "
        "is closer to the teacher. Methods that imitate the neck bring it down, others leave the "
        f"channels free. Mean over the channels: {means}.",
        source="DeFeat, figure 8",
        alt=f"Two line charts over the channels of level {level}, a line per student. {means}.",
        rows=list(_rows(level, found)),
        draw=lambda: _draw(found),
        group="channels",
        tab=level,
    )


def _rows(level: str, found: Mapping[str, Distances]) -> Iterator[Row]:
    for label, of_student in found.items():
        for channel in range(len(of_student["objects"])):
            distances = {part: float(of_student[part][channel]) for part in _PARTS}
            yield {"level": level, "detector": label, "channel": channel, **distances}


def _draw(found: Mapping[str, Distances]) -> Drawing:
    drawing = Drawing(figsize=(8.4, 3.2))
    panels = drawing.subplots(1, len(_PARTS), sharey=True)
    paint = charts.paints(list(found))
    for axes, part in zip(panels, _PARTS, strict=True):
        axes.set(title=f"cells of {part}", xlabel="channel of the neck")
        for label, of_student in found.items():
            axes.plot(of_student[part].numpy(), color=paint[label], label=label)
        axes.grid(visible=True, axis="y")
    panels[0].set_ylabel("mean |student - teacher|")
    panels[0].set_ylim(bottom=0)
    charts.legend_above(panels[0])
    return drawing
