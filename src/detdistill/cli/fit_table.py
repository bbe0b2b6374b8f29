"""Which method fits which detectors, on the terminal and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator

from detdistill import fits, methods
from detdistill.cli import listings, tables

ABOUT = """\
A row is a method, a column the student's family; a cell names the teachers' families that it can
learn from, `own` being its own."""

PAGE = """\
# Methods and detectors

This page is generated from what methods declare and detectors offer: every pair of families is put
together, and what a method refuses is not in its cell. `detdistill methods --table` prints it,
`detdistill methods NAME` says all about one method.

{about}

{table}

## Why not

What a method says when it refuses a pair, here with its default settings:

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
    """`every`, `none`, `all but fcos`, or `own, atss`: what is shorter."""
    refused, found = list(fits.refusals(method, student)), fits.teachers(method, student)
    if not refused or not found:
        return "none" if refused else "every"
    if len(refused) < len(found):
        return "all but " + ", ".join(refused)
    return ", ".join("own" if teacher == student else teacher for teacher in found)


def _reasons(method: str) -> dict[str, str]:
    """The pairs that a method refuses, as `gfl from atss`, by what it says."""
    pairs: dict[str, list[str]] = {}
    for student in fits.families():
        for teacher, reason in fits.refusals(method, student).items():
            pairs.setdefault(reason, []).append(f"{student} from {teacher}")
    return {reason: ", ".join(names) for reason, names in pairs.items()}


def _reason_lines() -> Iterator[str]:
    for method in methods.names():
        for reason, pairs in _reasons(method).items():
            yield f"- {pairs}: {reason}"
