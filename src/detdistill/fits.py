"""Which method fits which pair of detectors: tried on what is known of them before any training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch

from detdistill import detectors
from detdistill.detectors.presets import FAMILIES
from detdistill.errors import UserError
from detdistill.methods import combine
from detdistill.structures import Spec

STUDENT, TEACHER = "quick-w8", "quick-w32"
"""The detectors of each family that stand for it."""

CLASSES = 8

Pair = tuple[str, str]
"""Families of the student and of the teacher."""


def refusal(
    method: str, settings: Mapping[str, object], *, student: Spec, teacher: Spec
) -> str | None:
    """Why a method cannot work on a pair, in its own words; None if it can.

    Raises:
        UserError: there is no such method or setting.
    """
    built = combine.build(method, settings)
    try:
        with torch.device("meta"):
            combine.setup({method: built}, teacher, student)
    except UserError as error:
        return str(error)
    return None


@cache
def spec(detector: str) -> Spec:
    """What is known of a named detector; it is built without memory."""
    with torch.device("meta"):
        return detectors.build(detector, [str(number) for number in range(CLASSES)]).spec


def pairs() -> list[Pair]:
    """Every family as student of every family."""
    return [(student, teacher) for student in FAMILIES for teacher in FAMILIES]


@cache
def refusals(method: str) -> Mapping[Pair, str | None]:
    """For every pair of families why the method, as it comes, refuses it; None if it does not."""
    return {
        (student, teacher): refusal(
            method,
            {},
            student=spec(f"{student}-{STUDENT}"),
            teacher=spec(f"{teacher}-{TEACHER}"),
        )
        for student, teacher in pairs()
    }
