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


def families() -> list[str]:
    """The kinds of detectors, such as `gfl`."""
    return list(FAMILIES)


@cache
def dense_families() -> list[str]:
    """Those that predict at every cell of the pyramid."""
    return [name for name in families() if spec(f"{name}-{STUDENT}").family == "dense"]


@cache
def spec(detector: str) -> Spec:
    """What is known of a named detector; it is built without memory.

    Raises:
        UserError: there is no such detector, or a package that it needs is missing.
    """
    with torch.device("meta"):
        return detectors.build(detector, [str(number) for number in range(CLASSES)]).spec


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
def refusals(method: str, student: str) -> Mapping[str, str]:
    """The families of teachers from which a family of students cannot learn by a method, and why.

    Raises:
        UserError: there is no such method, or a package that a detector needs is missing.
    """
    reasons = {
        teacher: refusal(
            method,
            {},
            student=spec(f"{student}-{STUDENT}"),
            teacher=spec(f"{teacher}-{TEACHER}"),
        )
        for teacher in families()
    }
    return {teacher: reason for teacher, reason in reasons.items() if reason}


def teachers(method: str, student: str) -> list[str]:
    """The families of teachers from which a family of students can learn by a method.

    Raises:
        UserError: as `refusals`.
    """
    refused = refusals(method, student)
    return [teacher for teacher in families() if teacher not in refused]
