"""What the small-scale recipes reached, for the list of recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import mean, stdev
from typing import Any

from benchmarks.studies.study import Arm, Results, Table

from detdistill import recipes
from detdistill.recipes import Recipe, Result


def found(tables: Sequence[Table], results: Results) -> dict[str, Result]:
    """The results of all rows of which there is a recipe, by its name."""
    small = filter(_is_small, recipes.every())
    names = {key_of_recipe(recipe): recipe.name for recipe in small}
    return {
        names[content]: result for content, result in _measured(tables, results) if content in names
    }


def _measured(tables: Sequence[Table], results: Results) -> Iterator[tuple[str, Result]]:
    for table in tables:
        alone = results.ap(table, table.rows[0])
        for row in table.rows:
            aps = results.ap(table, row)
            if aps and alone and table.split == "test":
                yield key_of_row(table, row), _result(table, aps, alone)


def _result(table: Table, aps: Sequence[float], alone: Sequence[float]) -> Result:
    return Result(
        ap=round(mean(aps), 2),
        deviation=round(stdev(aps), 2) if len(aps) > 1 else 0.0,
        alone=round(mean(alone), 2),
        seeds=len(aps),
        steps=table.student.steps,
    )


def _is_small(recipe: Recipe) -> bool:
    return str(recipe.settings["data"]).startswith("shapes")


def key_of_row(table: Table, row: Arm) -> str:
    """Student, teacher and methods: equal to a recipe's if it is the same training."""
    teacher = table.teacher.student if table.teacher and row.methods else None
    return _key(table.student.student, teacher, row.methods)


def key_of_recipe(recipe: Recipe) -> str:
    """The same of a recipe."""
    settings = recipe.settings
    return _key(settings["student"], recipe.paper.teacher, settings.get("methods", {}))


def _key(student: str, teacher: str | None, methods: Any) -> str:  # noqa: ANN401 - JSON
    return json.dumps([student, teacher, methods], sort_keys=True)
