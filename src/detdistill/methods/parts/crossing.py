"""Where one detector's features can enter another's head, and in what form: CrossKD's machinery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch.nn import functional as F

from detdistill import losses
from detdistill.levels import Levels
from detdistill.methods.method import UnsuitablePairError
from detdistill.methods.parts.mimicry import PUBLISHED, Said, common, own
from detdistill.methods.parts.pair import (
    kind_of_head,
    same_classes,
    same_family,
    same_priors,
    same_region_features,
    same_strides,
    same_towers,
    same_widths,
)
from detdistill.structures import (
    Reads,
    Spec,
    Step,
    Towers,
)

Strategy = Literal["a", "b", "c", "d"]


class Place(NamedTuple):
    """Where the features cross."""

    family: str
    cut: int | None = None
    """Block of the towers of a one-stage head; None behind its last layer."""


def place(cut: int | None, strategy: Strategy, teacher: Spec, student: Spec) -> Place:
    """Where the features cross, if they can.

    Raises:
        UnsuitablePairError: they cannot, or there is nothing to choose in this family.
    """
    same_family("crosskd", teacher, student)
    same_classes("crosskd", teacher, student)
    if teacher.family == "dense":
        return _place_in_towers(cut, strategy, teacher, student)
    if cut is not None or strategy != "a":
        raise UnsuitablePairError(
            f"crosskd has nowhere else to cross in {teacher.family} detectors: leave out cut and "
            "strategy."
        )
    same_widths("crosskd", teacher, student)
    if teacher.family == "region":
        same_region_features("crosskd", teacher, student)
    else:
        same_strides("crosskd", teacher, student)
    return Place(teacher.family)


def _place_in_towers(cut: int | None, strategy: Strategy, teacher: Spec, student: Spec) -> Place:
    same_strides("crosskd", teacher, student)
    depth = min(teacher.tower_depth, student.tower_depth)
    if cut is None:
        cut = max(depth - PUBLISHED[kind_of_head(teacher)].after, 0)
    mimics = cut == depth + 1
    if mimics or strategy in "cd":
        same_priors("crosskd", teacher, student)
    if mimics:
        return Place("dense")
    same_towers("crosskd", cut, teacher, student)
    return Place("dense", cut)


def reads(found: Place, *, preactivation: bool) -> Reads:
    """What has to be kept of both detectors."""
    if found.family == "region":
        return Reads(targets=True, head=True)
    if found.family == "query":
        return Reads(neck=False, predictions=True, targets=True, encoder=True, head=True)
    towers = frozenset(() if found.cut is None else {found.cut})
    return Reads(
        neck=False,
        predictions=True,
        targets=True,
        towers=towers,
        preactivation=preactivation and bool(towers),
        head=bool(towers),
    )


def spoken_by(found: Place, strategy: Strategy, teacher: Spec, student: Spec) -> Spec:
    """The head in whose terms predictions are compared."""
    if strategy in "cd" or found == Place("dense"):
        return common(student, teacher)
    return student if strategy == "b" else teacher


def entering(student: Towers, teacher: Towers, cut: int, *, align: bool, lone: bool) -> Towers:
    """The student's features as they enter the teacher's layers behind `cut`."""

    def entered(mine: Levels, model: Levels) -> Levels:
        if align:
            mine = tuple(map(partial(losses.with_statistics_of, lone=lone), mine, model))
        return tuple(map(F.relu, mine)) if cut else mine

    return Towers(
        cls={cut: entered(student.cls[cut], teacher.cls[cut])},
        reg={cut: entered(student.reg[cut], teacher.reg[cut])},
    )


def compared(strategy: Strategy, cross: Callable[[Step], Said], step: Step) -> tuple[Said, Said]:
    """What learns and what it learns, without history: the four strategies of table 12.

    Args:
        strategy: its letter.
        cross: what the teacher's head makes of the student's features in a step.
        step: the step.
    """
    if strategy == "a":
        return cross(step), own(step)
    if strategy == "d":
        return cross(_exchanged(step)), own(step)
    with torch.no_grad():
        crossed = cross(step if strategy == "c" else _exchanged(step))
    return step.student.dense, crossed


def _exchanged(step: Step) -> Step:
    """Teacher and student in each other's place."""
    return replace(
        step,
        student=step.teacher,
        teacher=step.student,
        student_head=step.teacher_head,
        teacher_head=step.student_head,
    )
