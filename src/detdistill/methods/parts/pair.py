"""What a teacher and a student must share, and the layers that bridge a difference in width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from detdistill.boxes import DistanceCoder
from detdistill.methods.method import UnsuitablePairError
from detdistill.structures import Spec

Adapter = Literal["auto", "none", "conv1", "conv3"]
"""A convolution of size 1 or 3, or no layer; `auto` is `conv1` where the widths differ."""


def same_family(method: str, teacher: Spec, student: Spec) -> None:
    """Refuses detectors whose predictions are made in different ways."""
    if teacher.family != student.family:
        raise UnsuitablePairError(
            f"{method} needs two detectors of one family, but the teacher is a {teacher.family} "
            f"one and the student a {student.family} one: choose such a pair, or a method that "
            "reads only the neck, such as pkd."
        )


def or_published(given: Sequence[float | None], published: Sequence[float]) -> list[float]:
    """What was given, and the published number in the place of a None."""
    return [p if g is None else g for g, p in zip(given, published, strict=True)]


HeadKind = Literal["distributions", "distances", "anchors", "regions", "queries"]


def kind_of_head(spec: Spec) -> HeadKind:
    """By which released settings differ: how GFL, FCOS, ATSS and RetinaNet say a box, or stages."""
    if spec.family != "dense":
        return "regions" if spec.family == "region" else "queries"
    if spec.bins is not None:
        return "distributions"
    return "distances" if isinstance(spec.coder, DistanceCoder) else "anchors"


def same_level_count(method: str, teacher: Spec, student: Spec) -> None:
    """Refuses pyramids of different height."""
    if len(teacher.strides) != len(student.strides):
        raise UnsuitablePairError(
            f"{method} compares the necks level by level, but the teacher has "
            f"{len(teacher.strides)} levels and the student {len(student.strides)}: choose "
            "detectors with equally many."
        )


def same_strides(method: str, teacher: Spec, student: Spec) -> None:
    """Refuses pyramids whose cells do not lie on each other."""
    if teacher.strides != student.strides:
        raise UnsuitablePairError(
            f"{method} compares cell with cell, but the teacher's levels have strides "
            f"{teacher.strides} and the student's {student.strides}: choose detectors with equal "
            "strides, or pkd, which resizes."
        )


def same_classes(method: str, teacher: Spec, student: Spec) -> None:
    """Refuses class lists in which number k means two things."""
    if len(teacher.classes) != len(student.classes):
        raise UnsuitablePairError(
            f"{method} compares class scores, but the teacher knows {len(teacher.classes)} classes "
            f"and the student {len(student.classes)}: train the teacher on the student's classes, "
            "or take a method that reads only the neck, such as pkd."
        )
    if teacher.classes != student.classes and set(teacher.classes) == set(student.classes):
        raise UnsuitablePairError(
            f"{method} compares class scores by number, but the teacher's classes are in another "
            "order than the student's: bring them into the same order."
        )


def same_priors(method: str, teacher: Spec, student: Spec) -> None:
    """Refuses heads whose predictions do not stand for the same priors."""
    if teacher.priors_per_cell != student.priors_per_cell:
        raise UnsuitablePairError(
            f"{method} needs equally many priors per cell, but the teacher has "
            f"{teacher.priors_per_cell} and the student {student.priors_per_cell}: choose "
            "detectors of one kind."
        )


def needs_anchors(method: str, student: Spec) -> None:
    """Refuses heads whose priors are points, which overlap nothing, and those without priors."""
    if student.family == "query" or isinstance(student.coder, DistanceCoder):
        has = "has none" if student.family == "query" else "has points"
        raise UnsuitablePairError(
            f"{method} asks which anchors overlap an object, but the student {has}: choose a "
            "student with anchors, such as gfl, or a method that needs none, such as pkd."
        )


def same_predictions(method: str, teacher: Spec, student: Spec) -> None:
    """Refuses heads whose class scores and boxes cannot be compared one by one."""
    same_family(method, teacher, student)
    same_strides(method, teacher, student)
    same_classes(method, teacher, student)
    same_priors(method, teacher, student)


def within_towers(method: str, cut: int, teacher: Spec, student: Spec) -> None:
    """Refuses a block of the head towers that not both have; 0 is the neck."""
    for family in (teacher.family, student.family):
        if family != "dense":
            raise UnsuitablePairError(
                f"{method} was asked for head towers, which {family} detectors do not have: choose "
                "the neck, or one-stage detectors."
            )
    depth = min(teacher.tower_depth, student.tower_depth)
    if not 0 <= cut <= depth:
        raise UnsuitablePairError(
            f"{method} cannot cut at block {cut}: the shorter head tower of the two has {depth} "
            f"blocks (teacher {teacher.tower_depth}, student {student.tower_depth}); set cut from "
            f"0 to {depth}."
        )


def same_towers(method: str, cut: int, teacher: Spec, student: Spec) -> None:
    """Refuses heads in which the teacher's cannot go on from the student's after block `cut`."""
    within_towers(method, cut, teacher, student)
    theirs, own = _widths(cut, teacher, student)
    if theirs != own:
        raise UnsuitablePairError(
            f"{method} sends the student's head features through the teacher's head, but at cut "
            f"{cut} they have {own} channels and the teacher's {theirs}: choose heads of one "
            "width, or a method with adapters, such as fitnet."
        )


def same_widths(method: str, teacher: Spec, student: Spec, *, cut: int = 0) -> None:
    """Refuses necks, or behind block `cut` of the towers heads, of different width."""
    theirs, own = _widths(cut, teacher, student)
    part = "head" if cut else "neck"
    if theirs != own:
        raise UnsuitablePairError(
            f"{method} compares channel with channel, but the teacher's {part} has {theirs} "
            f"channels and the student's {own}: choose {part}s of one width, or fitnet, which has "
            "adapters."
        )


def _widths(cut: int, teacher: Spec, student: Spec) -> tuple[int, int]:
    """Channels behind block `cut` of the teacher's and the student's towers; of the necks at 0."""
    if cut == 0:
        return teacher.channels, student.channels
    return teacher.tower_channels, student.tower_channels


def same_region_features(method: str, teacher: Spec, student: Spec) -> None:
    """Refuses two-stage detectors that look at regions in different detail."""
    if teacher.pool_size != student.pool_size:
        raise UnsuitablePairError(
            f"{method} shows the teacher's second stage the student's region features, but the "
            f"teacher pools {teacher.pool_size} cells per side and the student "
            f"{student.pool_size}: choose detectors that pool equally many."
        )


def adapters(method: str, kind: Adapter, teacher: Spec, student: Spec) -> nn.ModuleList:
    """One layer per level from the student's width to the teacher's; may be no layer at all."""
    return nn.ModuleList(
        layer(method, kind, teacher.channels, student.channels) for _ in student.strides
    )


def backbone_adapters(
    method: str, kind: Adapter, count: int, *, teacher: Spec, student: Spec
) -> nn.ModuleList:
    """One layer, with a ReLU behind it, for each of the last `count` stages of the backbones."""
    stages = [spec.backbone_channels[-count:] for spec in (teacher, student)]
    if any(len(widths) < count for widths in stages):
        raise UnsuitablePairError(
            f"{method} compares {count} stages of the backbones, but the teacher's neck is made "
            f"from {len(stages[0])} and the student's from {len(stages[1])}: leave out the "
            "backbone."
        )
    layers = (layer(method, kind, *widths) for widths in zip(*stages, strict=True))
    return nn.ModuleList(
        one if isinstance(one, nn.Identity) else nn.Sequential(one, nn.ReLU()) for one in layers
    )


def layer(method: str, kind: Adapter, teacher: int, student: int) -> nn.Module:
    """From the student's number of channels to the teacher's."""
    differ = teacher != student
    if kind == "none" and differ:
        raise UnsuitablePairError(
            f"{method} without an adapter needs maps of one width, but the teacher has "
            f"{teacher} channels and the student {student}: leave out adapter=none."
        )
    if kind == "none" or (kind == "auto" and not differ):
        return nn.Identity()
    size = 3 if kind == "conv3" else 1
    return nn.Conv2d(student, teacher, size, padding=size // 2)
