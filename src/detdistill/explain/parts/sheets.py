"""What figures of feature maps share: a picture's maps as a drawing, as rows and in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detdistill.explain.figure import Figure, FigureUnavailableError, Row
from detdistill.explain.subject import Subject, View
from detdistill.levels import Levels
from detdistill.masks import cell_centers, inside_objects
from detdistill.show.maps import Picture, Strip, level_name, sheet
from detdistill.structures import EVERYTHING, Reads, Spec


@dataclass(frozen=True, kw_only=True)
class Map:
    """Numbers over the cells of a picture."""

    label: str
    levels: Levels
    """(1, H, W) per level."""
    unit: str
    """What the numbers are."""
    scale: str = ""
    """Neighbours with the same unit and scale are drawn in the same colours."""


def needs_cells(subject: Subject) -> None:
    """Raises `FigureUnavailableError` where teacher and students do not speak of the same cells."""
    student = subject.students[0]
    scale = subject.train_step(student).scale
    if scale and not scale.has_predictions:
        raise FigureUnavailableError(
            f"The teacher saw the pictures {scale.factor:g} times as large as the student, so its "
            "cells are others."
        )
    reason = apart(*subject.specs(student))
    if reason:
        raise FigureUnavailableError(
            f"The teacher's cells cannot be compared with the student's. {reason}"
        )


def apart(teacher: Spec, student: Spec) -> str:
    """Why two detectors' predictions cannot be compared cell by cell; empty if they can."""
    if "query" in (teacher.family, student.family):
        return "What a query detector says belongs to queries, not to cells."
    if teacher.family != student.family:
        return f"It is a {teacher.family} detector, the student a {student.family} one."
    if teacher.classes != student.classes:
        return "It knows other classes than the student."
    if teacher.strides != student.strides:
        return (
            f"Its cells have sides of {teacher.strides} pixels, the student's of {student.strides}."
        )
    return ""


def views_of(
    subject: Subject, students: Sequence[str], reads: Reads = EVERYTHING
) -> Iterator[dict[str, View]]:
    """For every shown picture, how a method sees it that teaches each of these students."""
    for views in zip(*(subject.views(student, reads) for student in students), strict=True):
        yield dict(zip(students, views, strict=True))


def figure(
    view: View,
    maps: Sequence[Map],
    strides: Sequence[int],
    *,
    group: str,
    title: str,
    caption: str,
    source: str,
) -> Figure:
    """The maps of one picture; those of other pictures are behind other tabs.

    Args:
        view: the picture.
        maps: from top to bottom.
        strides: pixels per cell of each level.
        group: as of every figure, and the first part of the name.
        title: as of every figure.
        caption: as of every figure.
        source: as of every figure.
    """
    strips = _strips(view, maps)
    return Figure(
        name=f"{slug(group)}-{_id(view)}",
        title=title,
        caption=caption,
        source=source,
        alt=f"Maps over picture {_id(view)}, level by level. {in_words(maps)}",
        rows=_rows(view, maps, strides),
        draw=lambda: sheet(strips, strides),
        group=group,
        tab=f"picture {_id(view)}",
    )


def slug(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-")


def in_words(maps: Sequence[Map]) -> str:
    """Mean and highest number of each map."""
    values = {m.label: torch.cat([level.flatten() for level in m.levels]) for m in maps}
    said = (f"{n}: mean {v.mean():.3g}, highest {v.max():.3g}" for n, v in values.items())
    return f"{'; '.join(said)}."


def share_on_objects(view: View, levels: Levels, strides: Sequence[int]) -> float:
    """Share of a map's sum in cells whose middle lies in an object."""
    inside = [
        inside_objects(cell_centers(level, stride), view.batch.truth)[0]
        for level, stride in zip(levels, strides, strict=True)
    ]
    values = torch.cat([level.flatten() for level in levels])
    return float((values * torch.cat(inside)).sum() / values.sum().clamp(min=1e-12))


def _id(view: View) -> int:
    return int(view.batch.ids[0])


def _strips(view: View, maps: Sequence[Map]) -> list[Strip]:
    """Maps with the picture below them, without padding."""
    truth = view.batch.truth
    height, width = truth.sizes[0].tolist()
    picture = Picture(
        name=f"picture {_id(view)}",
        image=view.batch.images[0, :, :height, :width].cpu(),
        boxes=truth.boxes[0, truth.valid[0]].cpu(),
    )
    return [
        Strip(label=m.label, picture=picture, maps=_of_one(m.levels), unit=m.unit, scale=m.scale)
        for m in maps
    ]


def _rows(view: View, maps: Sequence[Map], strides: Sequence[int]) -> list[Row]:
    """A row per cell, a column per map."""
    levels = zip(strides, *(_of_one(m.levels) for m in maps), strict=True)
    return [
        {
            "image": _id(view),
            "level": level_name(stride),
            "row": row,
            "column": column,
            **{m.label: _short(v[row, column]) for m, v in zip(maps, of_level, strict=True)},
        }
        for stride, *of_level in levels
        for row in range(of_level[0].shape[0])
        for column in range(of_level[0].shape[1])
    ]


def _short(value: Tensor) -> float:
    """A number with as many digits as somebody can use."""
    return float(f"{value:.5g}")


def _of_one(levels: Levels) -> Levels:
    """(1, H, W) -> (H, W), ready to be drawn."""
    return tuple(level[0].detach().float().cpu() for level in levels)
