"""Methods by name, alone or together: `crosskd+pkd`; and what speaks against a combination."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any, get_type_hints

from detdistill.errors import UserError, unknown_name
from detdistill.methods import find
from detdistill.methods.method import Method, UnsuitablePairError
from detdistill.structures import Reads, Spec
from detdistill.typed import described, fits

Settings = Mapping[str, Mapping[str, Any]]
Methods = Mapping[str, Method]

COUNTS = {"count", "candidates", "size", "window"}
"""What settings are called that say how many regions or cells there are, of which one is needed."""


def parse(text: str, settings: Settings | None = None) -> dict[str, Method]:
    """The methods that `text` names, such as `crosskd+pkd`, with hyper-parameters by method.

    Raises:
        UserError: a name, a hyper-parameter or a value that does not exist; a method named twice.
    """
    names = [name.strip() for name in text.split("+")]
    settings = settings or {}
    if not all(names):
        raise UserError(f"No method between the plus signs of {text!r}: write a+b.")
    for name in settings:
        if name not in names:
            raise unknown_name("method with settings", name, names)
    _require_once(names)
    return build_all({name: settings.get(name) or {} for name in names})


def build_all(settings: Settings) -> dict[str, Method]:
    """Methods under the last part of their names, which also names their losses.

    Args:
        settings: hyper-parameters by name of the method.

    Raises:
        UserError: a name, a hyper-parameter or a value that does not exist; a method named twice.
    """
    _require_once(settings)
    return {short(name): build(name, own) for name, own in settings.items()}


def short(name: str) -> str:
    """A method's name, or the last word of its import path."""
    return name.rpartition(".")[2]


def build(name: str, settings: Mapping[str, Any]) -> Method:
    """One method with its hyper-parameters."""
    kind = find(name)
    hints = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for setting, value in settings.items():
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
        if not fits(value, hints[setting]):
            raise UserError(
                f"{name} cannot have {setting}={value!r}: expected {described(hints[setting])}."
            )
        if setting in COUNTS and value is not None and value < 1:
            raise UserError(f"{name} cannot have {setting}={value!r}: expected at least 1.")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name} cannot have {setting}={value!r}: expected a finite number.")
        if _is_weight(setting) and isinstance(value, (int, float)) and value < 0:
            raise UserError(
                f"{name} cannot have {setting}={value!r}: expected 0 or more, since less would "
                "drive the student away from the teacher."
            )
    return kind(**settings)


def _is_weight(setting: str) -> bool:
    return setting == "weight" or setting.endswith("_weight")


def setup(methods: Methods, teacher: Spec, student: Spec) -> Reads:
    """Fits the methods to a pair of detectors; returns what they read together.

    Raises:
        UnsuitablePairError: a method cannot work on this pair.
        UserError: two methods need the same thing in two forms.
    """
    for name, method in methods.items():
        for role, spec in (("teacher", teacher), ("student", student)):
            if spec.family not in method.families:
                raise UnsuitablePairError(
                    f"{name} works on {' and '.join(method.families)} detectors, but the {role} "
                    f"is a {spec.family} one: choose another method."
                )
        method.setup(teacher, student)
    return _reads_of(methods)


def _reads_of(methods: Methods) -> Reads:
    """The union, unless towers are wanted both before and after their activation."""
    reads = {name: method.reads for name, method in methods.items() if method.reads.towers}
    before = [name for name, read in reads.items() if read.preactivation]
    after = [name for name, read in reads.items() if not read.preactivation]
    if before and after:
        raise UserError(
            f"{before[0]} reads the head towers before their activation and {after[0]} after it: "
            "give both the same preactivation."
        )
    return reduce(or_, (method.reads for method in methods.values()))


def conflicts(methods: Methods) -> list[str]:
    """Why these methods may hinder each other, one sentence each; empty if nothing is known."""
    return [reason for check in _CHECKS if (reason := check(methods))]


def _pulling(methods: Methods, part: str) -> list[str]:
    """Who pulls this part of the student."""
    return [name for name, method in methods.items() if part in method.pulling()]


def _several_pull_one_neck(methods: Methods) -> str | None:
    pulling = _pulling(methods, "neck")
    if len(pulling) < 2:  # noqa: PLR2004 - two make a pair
        return None
    return (
        f"{' and '.join(pulling)} pull the same neck levels towards the teacher with different "
        "distances; their gradients add up, so one of them, or smaller weights, may do better."
    )


def _several_pull_one_prediction(methods: Methods) -> str | None:
    pulling = _pulling(methods, "predictions")
    if len(pulling) < 2:  # noqa: PLR2004 - two make a pair
        return None
    return (
        f"{' and '.join(pulling)} pull the same class scores or boxes towards the teacher, beside "
        "the labels; what they have in common counts twice, so one of them, or smaller weights, "
        "may do better."
    )


def _crossed_beside_mimicked(methods: Methods) -> str | None:
    crossing, mimicking = _pulling(methods, "crossed predictions"), _pulling(methods, "predictions")
    if not (crossing and mimicking):
        return None
    return (
        f"{crossing[0]} keeps the teacher away from the student's own predictions and "
        f"{mimicking[0]} makes them imitate it; the conflict with the labels that the former "
        "avoids is back (CrossKD, table 4: 38.1 AP together, 38.7 alone)."
    )


_CHECKS: tuple[Callable[[Methods], str | None], ...] = (
    _several_pull_one_neck,
    _several_pull_one_prediction,
    _crossed_beside_mimicked,
)


def _require_once(names: Iterable[str]) -> None:
    for name, count in Counter(map(short, names)).items():
        if count > 1:
            raise UserError(f"Method {name!r} is named {count} times; once is enough.")
