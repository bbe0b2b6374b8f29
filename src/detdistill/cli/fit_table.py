"""Which method fits which detectors, on the terminal and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from detdistill import fits, methods
from detdistill.cli import listings, tables

ABOUT = """\
A row is a method, a column the student's family; a cell names the teachers' families that it can
learn from: `own` is its own, `dense` all of gfl, atss, retinanet and fcos."""

PAGE = """\
# Methods and detectors

This page is generated from what methods declare and detectors offer: every pair of families is put
together, and what a method refuses is not in its cell. `detdistill methods --table` prints it,
`detdistill methods NAME` says all about one method.

{about}

{table}

## Why not

Why methods with their default settings refuse a pair; below each reason stand the methods that give
it, and the students and teachers that they give it for:

{reasons}
"""


def show() -> None:
    """Prints the table."""
    tables.show(("method", *fits.families()), (_row(name) for name in methods.names()))
    tables.say(f"\n{ABOUT}\n'detdistill methods NAME' says why it refuses the others.")


def show_refusals(method: str) -> None:
    """Prints which pairs a method refuses, and why; nothing if it takes all."""
    reasons = _reasons(method)
    if reasons:
        tables.say("\nRefuses, with these settings (student from teacher)")
        tables.show(("pairs", "because"), [(pairs, reason) for reason, pairs in reasons.items()])


def page() -> str:
    """The page `docs/methods.md`."""
    rows = [("method", *fits.families(), "paper"), ("---",) * (len(fits.families()) + 2)]
    rows += [(*_row(name), listings.method_card(name).paper) for name in methods.names()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return PAGE.format(about=ABOUT, table=table, reasons="\n".join(_reason_lines()))


def _row(method: str) -> tuple[str, ...]:
    return (method, *(_cell(method, student) for student in fits.families()))


def _cell(method: str, student: str) -> str:
    """The teachers that a student can learn from."""
    return _listed(fits.teachers(method, student), own=student) or "none"


def _listed(families: Collection[str], own: str | None = None) -> str:
    """Names of families, in short; `own` is called so where it does not hide among others."""
    if len(families) == len(fits.families()):
        return "all"
    rest = list(families)
    if set(fits.dense_families()) <= set(families):
        rest = ["dense", *(name for name in families if name not in fits.dense_families())]
    return ", ".join("own" if name == own else name for name in rest)


def _reasons(method: str) -> dict[str, str]:
    """The pairs that a method refuses, as `gfl, atss from fcos`, by what it says."""
    refused: dict[str, dict[str, list[str]]] = {}
    for student in fits.families():
        for teacher, reason in fits.refusals(method, student).items():
            refused.setdefault(reason, {}).setdefault(student, []).append(teacher)
    return {reason: _pairs(teachers) for reason, teachers in refused.items()}


def _pairs(teachers: dict[str, list[str]]) -> str:
    """Students with the same teachers stand together."""
    students: dict[tuple[str, ...], list[str]] = {}
    for student, theirs in teachers.items():
        students.setdefault(tuple(theirs), []).append(student)
    return "; ".join(f"{_listed(mine)} from {_listed(theirs)}" for theirs, mine in students.items())


def _reason_lines() -> Iterator[str]:
    """Each reason once, below it the methods that refuse the same pairs for it."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for method in methods.names():
        for reason, pairs in _reasons(method).items():
            said = reason.removeprefix(f"{method} ")
            reasons.setdefault(said, {}).setdefault(pairs, []).append(method)
    for said, refused in reasons.items():
        yield f"- It {said}"
        for pairs, names in refused.items():
            yield f"  - {', '.join(names)}: {pairs}"
