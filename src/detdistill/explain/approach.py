"""How close each student's class scores come to the teacher's and to the truth while it learns.

Source: CrossKD, figure 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from torch import Tensor
from torch.nn import functional as F

from detdistill.detectors import Detector
from detdistill.device import best_device
from detdistill.explain.figure import Figure, FigureUnavailableError
from detdistill.explain.parts import charts
from detdistill.explain.subject import Subject
from detdistill.interop import checkpoint
from detdistill.structures import Batch
from detdistill.train.folder import RunFolder

_PICTURES = 64
_BATCH = 16

Courses = Mapping[str, Mapping[int, "Distances"]]
"""By the label of the student, then by steps."""


class Distances(NamedTuple):
    """Sums over classes of absolute differences of scores, mean over positive priors."""

    teacher: float
    truth: float


def figures(subject: Subject) -> Iterator[Figure]:
    """Two panels, a line per student that kept snapshots."""
    folders = {label: RunFolder(subject.parts[label].checkpoint) for label in subject.students}
    kept = {label: folder.snapshots() for label, folder in folders.items() if folder.snapshots()}
    if not kept:
        raise FigureUnavailableError(
            "No student was kept while it learned: train with --keep_every STEPS to see its course."
        )
    teacher = subject.detector(subject.teacher)
    _check(subject, list(kept))
    count = min(_PICTURES, len(subject.dataset))
    batches = [
        subject.batch(*range(start, min(start + _BATCH, count)))
        for start in range(0, count, _BATCH)
    ]
    taught = [_probabilities(teacher, batch) for batch in batches]
    courses = {label: _course(files, batches, taught) for label, files in kept.items()}
    yield _figure(courses, count)


def _check(subject: Subject, students: Sequence[str]) -> None:
    """Refuses a teacher whose scores are not of the students' priors or classes.

    Raises:
        FigureUnavailableError: they are not.
    """
    specs = [subject.detector(label).spec for label in (subject.teacher, *students)]
    if {spec.family for spec in specs} != {"dense"}:
        raise FigureUnavailableError(
            "Scores are compared prior by prior, which only dense detectors have."
        )
    if len({spec.classes for spec in specs}) > 1:
        raise FigureUnavailableError(
            "Scores are compared class by class, but the teacher knows other classes."
        )
    if any(subject.train_step(label).scale for label in students):
        raise FigureUnavailableError(
            "The teacher saw the pictures at another scale, so its priors are others."
        )


def _course(
    files: Mapping[int, Path], batches: Sequence[Batch], taught: Sequence[Tensor]
) -> dict[int, Distances]:
    """The distances of every kept student, by its steps."""
    return {step: _distances(_load(file), batches, taught) for step, file in files.items()}


def _load(file: Path) -> Detector:
    return checkpoint.load(file).to(best_device()).eval()


@torch.no_grad()
def _probabilities(detector: Detector, batch: Batch) -> Tensor:
    """(B, N, K) of every prior."""
    output = detector(batch.images, batch.truth.sizes)
    return output.dense.flat_logits().float().sigmoid()


@torch.no_grad()
def _distances(student: Detector, batches: Sequence[Batch], taught: Sequence[Tensor]) -> Distances:
    """Over the priors that the student's own assignment gives to objects."""
    sums = torch.zeros(3, dtype=torch.float64)
    for batch, theirs in zip(batches, taught, strict=True):
        output = student(batch.images, batch.truth.sizes)
        ours = output.dense.flat_logits().float().sigmoid()
        if ours.shape != theirs.shape:
            raise FigureUnavailableError(
                "Teacher and student have other priors, so no scores to compare."
            )
        _, targets = student.criterion(output, batch.truth)
        positive = (targets.labels < ours.shape[-1]) & (targets.weights > 0)
        wanted = F.one_hot(targets.labels[positive], ours.shape[-1])
        apart = [(ours[positive] - other).abs().sum() for other in (theirs[positive], wanted)]
        sums += torch.stack([*apart, positive.sum()]).double().cpu()
    teacher, truth = (sums[:2] / sums[2].clamp(min=1)).tolist()
    return Distances(teacher, truth)


def _figure(courses: Courses, count: int) -> Figure:
    return Figure(
        name="approach",
        title="How far each student's class scores are from the teacher's and from the truth",
        caption="L1 distance of the scores of all classes, mean over the priors that belong to an "
        f"object, on the first {count} test pictures (evaluation mode); the truth is 1 for the "
        "object's class and 0 for others. Measured on the students that the training kept; lower "
        "is closer. An untrained student begins with almost no score for any class, which is not "
        "far from the truth.",
        source="CrossKD, figure 6 (a, b)",
        alt="; ".join(_in_words(label, course) for label, course in courses.items()),
        rows=[
            {
                "detector": label,
                "step": step,
                "to_teacher": round(distances.teacher, 6),
                "to_truth": round(distances.truth, 6),
            }
            for label, course in courses.items()
            for step, distances in course.items()
        ],
        draw=partial(_draw, courses),
    )


def _in_words(label: str, course: Mapping[int, Distances]) -> str:
    first, last = (course[step] for step in (min(course), max(course)))
    return (
        f"{label}: to the teacher from {first.teacher:.2f} to {last.teacher:.2f}, "
        f"to the truth from {first.truth:.2f} to {last.truth:.2f}"
    )


def _draw(courses: Courses) -> Drawing:
    to_teacher, to_truth = charts.panels(2, width=4.4, height=3.2)
    _draw_lines(to_teacher, {k: {s: d.teacher for s, d in c.items()} for k, c in courses.items()})
    _draw_lines(to_truth, {k: {s: d.truth for s, d in c.items()} for k, c in courses.items()})
    to_teacher.set(title="to the teacher's scores", ylabel="L1 distance")
    to_truth.set(title="to the truth")
    charts.legend_above(to_teacher)
    return charts.drawing_of(to_teacher)


def _draw_lines(axes: Axes, lines: Mapping[str, Mapping[int, float]]) -> None:
    """A line per student over its steps."""
    paint = charts.paints(list(lines))
    for label, line in lines.items():
        steps, values = list(line), list(line.values())
        axes.plot(steps, values, color=paint[label], marker="o", markersize=3, label=label)
    axes.set_xlabel("step")
    axes.grid(visible=True)
