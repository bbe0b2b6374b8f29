"""Settings with a name, one short YAML file each: rows of the papers' tables, and small twins.

A file may name a `base` in `schedules`, whose settings it overrides; a base has none itself. What
stands under `paper` is no setting: the published number, the teacher that it was reached with, and
the `twin`, the same at small scale on the built-in pictures. Neither is `classes`, how many there
are in data that has to be brought along.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from detdistill.errors import unknown_name
from detdistill.files import write_json

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"

_BASES = "schedules"
_METRICS = ("AP", "AP50")

Settings = Mapping[str, Any]
"""Values by name, with groups such as `optimizer` as mappings of their own."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What a paper says of a recipe."""

    row: str = ""
    """Where the number stands in the paper that the recipe's folder is named after."""
    metric: str = "AP"
    value: float | None = None
    """In percent."""
    teacher: str | None = None
    """The teacher's detector."""
    twin: str | None = None
    """The recipe of the same at small scale."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a small-scale recipe reached here."""

    ap: float
    """Mean over seeds, in percent, on the test split."""
    deviation: float
    """Standard deviation over seeds."""
    alone: float
    """The mean of the student alone, over the same seeds."""
    seeds: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings, and what is known of them."""

    name: str
    about: str
    """What it is, in a sentence."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of an experiment."""
    paper: Paper = Paper()
    classes: int | None = None
    """How many classes its data has, where `data` stands for a folder; None for built-in data."""


def names() -> list[str]:
    """The recipes, as `benchmark/student`."""
    files = (file.relative_to(FOLDER).with_suffix("") for file in FOLDER.rglob("*.yaml"))
    return sorted(str(name) for name in files if name.parts[0] != _BASES)


def find(name: str) -> Recipe:
    """One recipe.

    Raises:
        UserError: there is no such recipe.
    """
    if name not in names():
        raise unknown_name("recipe", name, names())
    return _read(name)


def every() -> list[Recipe]:
    """All of them."""
    return [_read(name) for name in names()]


def of_table(name: str) -> list[Recipe]:
    """The rows of a paper's table with their published numbers, as `crosskd:table5`.

    Raises:
        UserError: no recipe is of such a table.
    """
    found = [recipe for recipe in every() if name in _tables(recipe)]
    if not found:
        known = {table for recipe in every() for table in _tables(recipe)}
        raise unknown_name("table", name, sorted(known))
    return found


def _tables(recipe: Recipe) -> set[str]:
    """Where its number stands in the paper that its folder is named after."""
    row = re.sub(r"\([^)]*\)", "", recipe.paper.row)
    if recipe.paper.value is None or not row.startswith("table"):
        return set()
    paper = recipe.name.partition("/")[0]
    return {f"{paper}:table{number}" for number in re.findall(r"\d+", row)}


def load(name: str) -> dict[str, Any]:
    """The settings of one recipe.

    Raises:
        UserError: there is no such recipe.
    """
    return find(name).settings


def over(base: Settings, settings: Settings) -> dict[str, Any]:
    """The second over the first; groups are merged value by value, `methods` is replaced whole."""
    merged = dict(base)
    for key, value in settings.items():
        groups = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if groups and key != "methods" else value
    return merged


def results() -> dict[str, Result]:
    """What was measured here, by the name of the small-scale recipe."""
    if not RESULTS.exists():
        return {}
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {name: Result(**values) for name, values in content.items()}


def write_results(found: Mapping[str, Result]) -> None:
    """Adds to what `results` gives; what was measured again replaces what there was."""
    merged = {**results(), **found}
    write_json(RESULTS, {name: vars(merged[name]) for name in sorted(merged)})


def _read(name: str) -> Recipe:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    paper, base = content.pop("paper", {}), content.pop("base", None)
    settings = over(_schedule(base), content) if base else content
    return Recipe(
        name=name,
        about=text.partition("\n")[0].removeprefix("# "),
        classes=settings.pop("classes", None),
        settings=settings,
        paper=_paper(paper),
    )


@cache
def _schedule(base: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{base}.yaml").read_text(encoding="utf-8"))
    return content


def _paper(said: Mapping[str, Any]) -> Paper:
    """The number stands under the name of its metric."""
    rest = {key: value for key, value in said.items() if key not in _METRICS}
    metric = next((metric for metric in _METRICS if metric in said), "AP")
    return Paper(**rest, metric=metric, value=said.get(metric))
