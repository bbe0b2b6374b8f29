"""A dictionary of a config that is read entry by entry, so that nothing in it goes unnoticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detdistill.errors import UserError

UNREAD = ("init_cfg", "pretrained", "with_cp")
"""Entries of any section: how weights began, and how memory is saved."""


class Section:
    """A dictionary and its place in the config.

    Every entry has to be asked for before `finish`, which refuses the others unless they switch
    something off.
    """

    def __init__(self, values: object, place: str) -> None:
        if not isinstance(values, Mapping):
            raise UserError(f"The config's {place} is {values!r}, not a dictionary.")
        self.place = place
        self._values = values
        self._read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - any plain value
        """An entry, or the value that MMDetection gives to it."""
        self._read.add(key)
        return self._values.get(key, default)

    def section(self, key: str, default: Mapping[str, Any] | None = None) -> Section:
        """A dictionary in this one."""
        return Section(self.get(key, default), f"{self.place}.{key}")

    @property
    def type(self) -> str:
        """The class that it builds, without the module."""
        return str(self.get("type", "")).rpartition(".")[2]

    def require(self, key: str, allowed: Sequence[object], *, default: object = None) -> Any:  # noqa: ANN401
        """An entry that must have one of the values that can be built here."""
        value = self.get(key, default)
        if _plain(value) not in [_plain(one) for one in allowed]:
            raise self.refusal(key, value, " or ".join(map(repr, allowed)))
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """An entry that says how many; MMDetection's -1 for any number cannot be built here."""
        value = self.get(key, default)
        if not isinstance(value, int) or value < 1:
            raise self.refusal(key, value, "a number from 1 on")
        return value

    def of_type(self, *allowed: str) -> str:
        """Its type, which must be one of those that can be built here."""
        if self.type not in allowed:
            raise self.refusal("type", self.type, " or ".join(map(repr, allowed)))
        return self.type

    def skip(self, *keys: str) -> None:
        """Entries that do not matter to what is computed."""
        self._read |= set(keys)

    def finish(self) -> None:
        """Refuses what was not asked for.

        Raises:
            UserError: an entry switches something on that cannot be built here.
        """
        for key, value in self._values.items():
            if key not in self._read and value:
                raise self.refusal(key, value, "nothing of that name")

    def refusal(self, key: str, value: object, supported: str) -> UserError:
        """The error for an entry that cannot be built here."""
        return UserError(
            f"The config has {self.place}.{key} = {value!r}, which cannot be built here. "
            f"Supported: {supported}."
        )


def _plain(value: object) -> object:
    """Lists and tuples of a config mean the same."""
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
