"""Settings as they stand in a YAML file or a Python call, before they become an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detdistill import recipes
from detdistill.errors import UserError
from detdistill.files import read_yaml
from detdistill.recipes import Settings, over


def read(*, recipe: str | None = None, config: Path | str | None = None) -> dict[str, Any]:
    """What a recipe says, overridden by what a YAML file says.

    Raises:
        UserError: there is no such recipe or file, or the file holds no settings.
    """
    base = recipes.load(recipe) if recipe else {}
    return over(base, _read_yaml(Path(config))) if config else base


def split_methods(settings: Settings, chosen: str | None) -> tuple[dict[str, Any], list[str]]:
    """Brings every way to name methods into one form.

    Args:
        settings: may hold `methods`, a mapping of names to hyper-parameters, or `method`, names
            joined by a plus, with hyper-parameters beside it under each method's short name.
        chosen: names joined by a plus that override those of the settings.

    Returns:
        The settings with each method's hyper-parameters under its short name, and the names.
    """
    values = {key: value for key, value in settings.items() if key not in {"methods", "method"}}
    listed = settings.get("methods") or {}
    joined = settings.get("method") if chosen is None else chosen
    names = list(listed) if joined is None else method_names(joined)
    for name in names:
        own = {**(listed.get(name) or {}), **(values.get(short(name)) or {})}
        values[short(name)] = own
    return values, names


def method_names(joined: str) -> list[str]:
    """`crosskd+pkd` -> both names; nothing for an empty text.

    Raises:
        UserError: a name is there twice, or missing before or after a plus.
    """
    names = [name.strip() for name in joined.split("+")] if joined.strip() else []
    if not all(names) or len({short(name) for name in names}) < len(names):
        raise UserError(f"--method {joined!r}: write different names with a plus, as crosskd+pkd.")
    return names


def short(method: str) -> str:
    """What a method's options begin with: its name, or the last word of its import path."""
    return method.rpartition(".")[2]


def _read_yaml(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} does not hold settings, written as 'name: value' lines.")
    return content
