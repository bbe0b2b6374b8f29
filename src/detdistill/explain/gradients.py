"""How hard each loss, of the labels and of the teacher, pulls at the student's features, and where.

Source: DeFeat, figure 2; CrossKD, figure 5.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from detdistill.evaluate.gradients import gradient_maps
from detdistill.explain.figure import Figure
from detdistill.explain.parts import sheets
from detdistill.explain.parts.sheets import Map
from detdistill.explain.subject import Subject, View
from detdistill.levels import Levels
from detdistill.methods import Method
from detdistill.structures import Reads, Spec, Towers

_OF_A_LEVEL = re.compile(r"/level\d+$")


def figures(subject: Subject) -> Iterator[Figure]:
    """A sheet per distilled student, picture and place in the student that a loss reaches."""
    for label in subject.distilled:
        spec = subject.detector(label).spec
        for view in subject.views(label, subject.reads(label) | _ends_of_towers(spec)):
            losses = _losses(view, subject.methods(label))
            for place, features in _places(view, spec).items():
                pulls = {name: gradient_maps(loss, features) for name, loss in losses.items()}
                if any(map(_is_felt, pulls.values())):
                    yield _figure(label, place, view, pulls, spec.strides)


def _ends_of_towers(spec: Spec) -> Reads:
    """Of a one-stage head."""
    return Reads(towers=frozenset({spec.tower_depth} if spec.tower_depth else ()))


def _losses(view: View, methods: Mapping[str, Method]) -> dict[str, Tensor]:
    """All losses by name; terms of a method that differ in their level alone are added up."""
    named = {f"labels: {name}": loss for name, loss in view.losses.items()}
    terms: dict[str, list[Tensor]] = defaultdict(list)
    for name, method in methods.items():
        for term, loss in method(view.step).items():
            terms[_OF_A_LEVEL.sub("", f"{name}/{term}")].append(loss)
    return named | {name: torch.stack(same).sum() for name, same in terms.items()}


def _places(view: View, spec: Spec) -> dict[str, Levels]:
    """Feature maps of the student, (1, C, H, W) per level."""
    student = view.step.student
    places = {"neck": student.neck}
    if isinstance(student.trace, Towers):
        places["class tower"] = student.trace.cls[spec.tower_depth]
        places["box tower"] = student.trace.reg[spec.tower_depth]
    return places


def _is_felt(pull: Levels) -> bool:
    """Whether a loss reaches a place."""
    return any(bool(level.any()) for level in pull)


def _figure(
    label: str, place: str, view: View, pulls: Mapping[str, Levels], strides: tuple[int, ...]
) -> Figure:
    """Of all losses; those that do not reach the place are only named."""
    maps = [
        Map(label=name, levels=levels, unit="length of gradient", scale=name)
        for name, levels in pulls.items()
        if _is_felt(levels)
    ]
    shares = (f"{m.label} {sheets.share_on_objects(view, m.levels, strides):.0%}" for m in maps)
    silent = ", ".join(name for name in pulls if name not in {m.label for m in maps})
    return sheets.figure(
        view,
        maps,
        strides,
        group=f"gradients-{label}-{place.replace(' ', '-')}",
        title=f"Where each loss pulls at the {place} of {label}, and how hard",
        caption="Length of each loss's gradient in every cell, each loss on a scale of its own. "
        f"Share of the pull inside objects: {', '.join(shares)}."
        + (f" Not pulling here: {silent}." if silent else ""),
        source="DeFeat, figure 2; CrossKD, figure 5",
    )
