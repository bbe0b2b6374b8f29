"""Settings as they stand in a YAML file or a Python call, before they become an experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detdistill import recipes, typed
from detdistill.errors import UserError
from detdistill.files import read_yaml
from detdistill.recipes import Settings, over


def read(*, recipe: str | None = None, config: Path | str | None = None) -> dict[str, Any]:
    """What a recipe says, overridden by what a YAML file says.

    Raises:
        UserError: there is no such recipe or file, or the file holds no settings.
    """
    return over(*layers(recipe=recipe, config=config))


def layers(
    *, recipe: str | None = None, config: Path | str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a recipe says, and what a YAML file says, which may name the recipe itself.

    Raises:
        UserError: as `read`.
    """
    own = _read_yaml(Path(config)) if config else {}
    name = recipe or own.get("recipe")
    typed.require("recipe", name, str | None)
    return recipes.load(name) if name else {}, own


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
    listed = by_name(settings.get("methods") or {})
    joined = settings.get("method") if chosen is None else chosen
    names = list(listed) if joined is None else method_names(joined)
    for name in names:
        own = {**listed.get(name, {}), **own_settings(name, values.get(short(name)))}
        values[short(name)] = own
    return values, names


def by_name(methods: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - what a file holds
    """Methods as a file names them, joined by a plus, listed or with settings -> settings by name.

    Raises:
        UserError: they are something else.
    """
    if isinstance(methods, Mapping):
        return {str(name): own_settings(name, own) for name, own in methods.items()}
    return {name: {} for name in method_names(methods)}


def own_settings(name: object, own: Any) -> dict[str, Any]:  # noqa: ANN401 - what a file holds
    """What stands under a method's name; nothing if it stands there alone.

    Raises:
        UserError: it is something else than settings.
    """
    if isinstance(own, Mapping):
        return dict(own)
    if own is not None:
        raise UserError(f"{name} is {own!r}, but must be its settings, as '{{weight: 2}}'.")
    return {}


def method_names(methods: Any) -> list[str]:  # noqa: ANN401 - what a file holds
    """`crosskd+pkd`, or a list of names -> the names; nothing for an empty text.

    Raises:
        UserError: a name is there twice, or missing before or after a plus, or no text.
    """
    listed = several(methods)
    joined = "+".join(map(str, listed))
    names = [name.strip() for name in joined.split("+")] if joined.strip() else []
    is_text = all(isinstance(name, str) for name in listed)
    if not is_text or not all(names) or len(set(map(short, names))) < len(names):
        raise UserError(f"--method {joined!r}: write different names with a plus, as crosskd+pkd.")
    return names


def several(given: Any) -> list[Any]:  # noqa: ANN401 - one of anything, or some of it
    """The values of a list or another iterable; a text, a mapping or a number is one value."""
    is_one = isinstance(given, (str, Mapping)) or not isinstance(given, Iterable)
    return [given] if is_one else list(given)


def short(method: str) -> str:
    """What a method's options begin with: its name, or the last word of its import path."""
    return method.rpartition(".")[2]


def _read_yaml(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} does not hold settings, written as 'name: value' lines.")
    if content.get("config") is not None:
        raise UserError(f"{file} names another file under 'config': write its settings here.")
    return content
