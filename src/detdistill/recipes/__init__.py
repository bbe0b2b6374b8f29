"""Settings that are known to work, one short YAML file each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from detdistill.errors import unknown_name

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The recipes, as `benchmark/student`."""
    return sorted(
        str(file.relative_to(_FOLDER).with_suffix("")) for file in _FOLDER.rglob("*.yaml")
    )


def load(name: str) -> dict[str, Any]:
    """The settings of one recipe.

    Raises:
        UserError: there is no such recipe.
    """
    if name not in names():
        raise unknown_name("recipe", name, names())
    content: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return content
