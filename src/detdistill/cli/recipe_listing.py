"""The recipes on the terminal: the papers' numbers, and ours at small scale beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from detdistill import recipes
from detdistill.cli import tables
from detdistill.recipes import Recipe, Result

COLUMNS = ("recipe", "student", "teacher", "methods", "published", "on shapes", "alone")

ABOUT = """\
Published: AP in percent on COCO. On shapes: the small twin on the built-in pictures, mean ±
standard deviation over seeds; alone: the same student without a teacher. 'detdistill recipes NAME'
says more; '--recipe NAME' runs it, with --data coco:PATH and --teacher RUN for those of papers."""


def card(recipe: Recipe, results: Mapping[str, Result]) -> dict[str, Any]:
    """One recipe as plain values."""
    paper = recipe.paper
    result = results.get(paper.twin or recipe.name)
    return {
        "name": recipe.name,
        "about": recipe.about,
        "settings": recipe.settings,
        "teacher": paper.teacher,
        "published": {paper.metric: paper.value} if paper.value is not None else {},
        "row": paper.row,
        "twin": paper.twin,
        "note": paper.note,
        "on_shapes": vars(result) if result else None,
    }


def cards() -> list[dict[str, Any]]:
    """All recipes."""
    results = recipes.results()
    return [card(recipe, results) for recipe in recipes.every()]


def show() -> None:
    """Prints the table."""
    tables.show(COLUMNS, [_row(entry) for entry in cards()])
    tables.say(f"\n{ABOUT}")


def show_one(name: str) -> None:
    """Prints a recipe's settings, and what is known of it."""
    entry = card(recipes.find(name), recipes.results())
    tables.say(f"{name}\n\n{entry['about']}\n")
    said = {
        "Published": f"{_published(entry) or 'no number'}, {entry['row']}" if entry["row"] else "",
        "Teacher": entry["teacher"],
        "Twin": entry["twin"],
        "On shapes": _on_shapes(entry),
        "Note": entry["note"],
    }
    for title, text in said.items():
        if text:
            tables.say(f"{title + ':':<11}{text}")
    tables.say("\n" + yaml.safe_dump(entry["settings"], sort_keys=False).strip())


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    result = entry["on_shapes"]
    return (
        entry["name"],
        entry["settings"]["student"],
        entry["teacher"] or "",
        "+".join(entry["settings"].get("methods", {})) or "alone",
        _published(entry),
        _on_shapes(entry),
        f"{result['alone']:.1f}" if result else "",
    )


def _published(entry: Mapping[str, Any]) -> str:
    """`38.7`, or `78.5 AP50`."""
    return "".join(
        f"{value:.1f}" + ("" if metric == "AP" else f" {metric}")
        for metric, value in entry["published"].items()
    )


def _on_shapes(entry: Mapping[str, Any]) -> str:
    result = entry["on_shapes"]
    if result is None:
        return "not run"
    return f"{result['ap']:.1f} ± {result['deviation']:.1f} ({result['seeds']} seeds)"
