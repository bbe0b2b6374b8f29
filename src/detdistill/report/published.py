"""Numbers of a paper's table beside ours: in a column of their own, and never counted with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detdistill import methods, recipes
from detdistill.recipes import Recipe
from detdistill.report.arms import Arm, Role
from detdistill.report.numbers import joined
from detdistill.report.runs import family_of

Methods = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Published:
    """The rows of a table in a paper."""

    name: str
    """`crosskd:table5`."""
    rows: tuple[Recipe, ...]

    def beside(self, arm: Arm) -> tuple[Recipe, ...]:
        """Rows of the same kind of detector with the same methods, or whose small twin has them."""
        if arm.role not in {Role.ALONE, Role.DISTILLED}:
            return ()
        ours = family_of(arm.first.student), _resolved(arm.first.methods)
        return tuple(
            row
            for row in self.rows
            if ours in [(family_of(row.settings["student"]), found) for found in _of_row(row)]
        )

    def cell(self, arm: Arm) -> str | None:
        """`43.9 (gfl-r50 from gfl-r101)`; None where the table has no such row."""
        return "; ".join(f"{_value(row)} ({_pair(row)})" for row in self.beside(arm)) or None

    def note(self, arms: Sequence[Arm]) -> str:
        """What the column is, and which rows of the table have no counterpart."""
        shown = {row.name for arm in arms for row in self.beside(arm)}
        others = [f"{_named(row)} {_value(row)}" for row in self.rows if row.name not in shown]
        rest = f" Without a counterpart here: {joined(others)}." if others else ""
        return (
            f"The column {self.name} has numbers that the paper reports for its own detectors, "
            "data and schedules. They were not measured here, and no other number uses them."
            f"{rest}"
        )


def read(name: str) -> Published:
    """The table that is called so, as `crosskd:table5`.

    Raises:
        UserError: no recipe is of such a table.
    """
    return Published(name=name, rows=tuple(recipes.of_table(name)))


def _of_row(row: Recipe) -> list[Methods]:
    """Its methods, and those of its twin."""
    found = [row.settings.get("methods", {})]
    if row.paper.twin:
        found.append(recipes.load(row.paper.twin).get("methods", {}))
    return [_resolved(each) for each in found]


def _resolved(chosen: Methods) -> Methods:
    """With the defaults of the methods of this package."""
    known = methods.names()
    return {
        name: {**(methods.find(name)().settings() if name in known else {}), **settings}
        for name, settings in chosen.items()
    }


def _value(row: Recipe) -> str:
    metric = "" if row.paper.metric == "AP" else f"{row.paper.metric} "
    return f"{metric}{row.paper.value}"


def _pair(row: Recipe) -> str:
    source = f" from {row.paper.teacher}" if row.paper.teacher else ""
    return f"{row.settings['student']}{source}"


def _named(row: Recipe) -> str:
    """`gfl-r50 with fgd`."""
    chosen = "+".join(row.settings.get("methods", {}))
    return f"{row.settings['student']} {f'with {chosen}' if chosen else 'alone'}"
