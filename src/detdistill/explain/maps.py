"""Where each method looks: the weights that it gives to the cells of a picture.

Source: TID, figures 2 and 4; DeFeat, figure 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from detdistill.explain.figure import Figure, FigureUnavailableError
from detdistill.explain.parts import sheets
from detdistill.explain.parts.sheets import Map
from detdistill.explain.subject import Subject, View
from detdistill.levels import Levels
from detdistill.methods.method import Looking

Areas = Mapping[str, Levels]


def figures(subject: Subject) -> Iterator[Figure]:
    """A sheet per distilled student and picture."""
    looking = {label: _looking(subject, label) for label in subject.distilled}
    if not any(looking.values()):
        raise FigureUnavailableError(
            "No method of these runs gives cells a weight of their own; `gradients` shows where "
            "its losses pull."
        )
    for label, methods in looking.items():
        if methods:
            for views in sheets.views_of(subject, _compared(subject, label), subject.reads(label)):
                yield _figure(subject, label, methods, views)


def _looking(subject: Subject, label: str) -> dict[str, Looking]:
    """The methods of a run that say where they look."""
    methods = subject.methods(label).items()
    return {name: method for name, method in methods if isinstance(method, Looking)}


def _figure(
    subject: Subject, label: str, methods: Mapping[str, Looking], views: Mapping[str, View]
) -> Figure:
    """What a run's methods weigh, with that run's student and with the student alone."""
    areas = {student: _areas(view, methods) for student, view in views.items()}
    return sheets.figure(
        views[label],
        [
            m
            for area in areas[label]
            for m in _maps(area, {student: found[area] for student, found in areas.items()})
        ],
        subject.specs(label)[0].strides,
        group=f"maps-{label}",
        title=f"Where {label} looks in a picture, level by level",
        caption="Weights of the cells as the method's own losses use them; each row has a scale of "
        "its own. A row for each student means that the weight depends on what the student has "
        "learned so far.",
        source="TID, figures 2 and 4",
    )


def _compared(subject: Subject, label: str) -> tuple[str, ...]:
    """The student alone, if there is one, and the distilled one."""
    return tuple(s for s in subject.students if s == label or s not in subject.distilled)


@torch.no_grad()
def _areas(view: View, methods: Mapping[str, Looking]) -> Areas:
    """(1, H, W) per level, by name."""
    return {
        area if len(methods) == 1 else f"{name}: {area}": tuple(level.float() for level in levels)
        for name, method in methods.items()
        for area, levels in method.areas(view.step).items()
    }


def _maps(area: str, by_student: Areas) -> list[Map]:
    """One map if the area is the same whoever learns, otherwise one per student."""
    first, *others = by_student.values()
    if all(_equal(first, other) for other in others):
        return [Map(label=area, levels=first, unit="weight", scale=area)]
    return [
        Map(label=f"{area}, {student}", levels=levels, unit="weight", scale=area)
        for student, levels in by_student.items()
    ]


def _equal(one: Levels, other: Levels) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
