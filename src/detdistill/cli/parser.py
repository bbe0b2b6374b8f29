"""The option parser: jsonargparse, with its complaints turned into one clear sentence."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import jsonargparse

from detdistill.errors import UserError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


class Parser(jsonargparse.ArgumentParser):
    """A parser of one command that raises `UserError` instead of leaving the process."""

    def __init__(self, command: str, *, purpose: str, usage: str) -> None:
        super().__init__(
            prog=f"detdistill {command}",
            description=purpose,
            usage=f"detdistill {command} {usage}",
            allow_abbrev=False,
            print_config=None,
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Called by jsonargparse for anything that it does not understand."""
        raise UserError(self.explain(message)) from ex

    def explain(self, message: str) -> str:
        """A complaint of jsonargparse in our words."""
        unknown = re.match(r"unrecognized arguments: (.*)", message, re.IGNORECASE | re.DOTALL)
        if unknown:
            return self._unknown(unknown[1].split())
        refused = re.search(r"(?:Group '([\w.]+)' does not accept o|O)ption '([\w.]+)'", message)
        if refused:
            return self._unknown([f"--{'.'.join(filter(None, refused.groups()))}"])
        wrong = re.match(r'Parser key "([^"]+)":\s*(.*)', message, re.DOTALL)
        if wrong:
            return f"--{wrong[1]} {_wrong_value(wrong[2])}."
        return " ".join(message.replace("argument ", "").split()).rstrip(".") + "."

    def _unknown(self, words: list[str]) -> str:
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        if not options:
            return f"Unexpected argument {words[0]!r}. '{self.prog} --help' lists what there is."
        near = self._near(options[0])
        hint = f" Did you mean {near!r}?" if near else ""
        return f"Unknown option {options[0]!r}.{hint} '{self.prog} --help' lists them."

    def _near(self, option: str) -> str | None:
        """What could be meant: the option of that name in a group, or else the nearest one."""
        known = [name for name in self.options() if name not in {"-h", "--help"}]
        in_groups = [name for name in known if name.endswith(f".{option.lstrip('-')}")]
        near = in_groups or get_close_matches(option, known, n=1)
        return near[0] if near else None

    def options(self) -> list[str]:
        """Everything that can be written with two dashes."""
        return [name for action in self._actions for name in action.option_strings]

    def hide_config_options(self) -> None:
        """Groups of options get a `--group CONFIG` of their own, which helps nobody."""
        for action in self._actions:
            if action.metavar == "CONFIG":
                action.help = argparse.SUPPRESS


def peek(
    arguments: Sequence[str], *options: str, several: Sequence[str] = ()
) -> argparse.Namespace:
    """Reads only what decides which options there are; None for what was not given.

    Args:
        arguments: the command line.
        options: names of options with one value.
        several: names of options with any number of values.

    Raises:
        UserError: a value is missing.
    """
    parser = _Peek(add_help=False, allow_abbrev=False)
    for option in options:
        parser.add_argument(f"--{option}")
    for option in several:
        parser.add_argument(f"--{option}", nargs="+")
    return parser.parse_known_args(list(arguments))[0]


class _Peek(argparse.ArgumentParser):
    """Complains as `Parser` does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument ") + ".")


def flat(
    values: Mapping[str, Any], whole: Collection[str] = (), prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """`{"optimizer": {"lr": 1}}` -> `optimizer.lr` and 1; mappings in `whole` stay as they are."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key not in whole:
            yield from flat(value, whole, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _wrong_value(complaint: str) -> str:
    """What was expected and what came, from jsonargparse's long form."""
    expected = re.findall(r"Expected an? (.+?)(?:\. Got value|\n|$)", complaint)
    got = re.search(r"(?:Got|Given) value: (.*)", complaint, re.DOTALL)
    if not expected or not got:
        return "is wrong: " + " ".join(complaint.split()).rstrip(".")
    return f"takes {' or '.join(map(_type_name, expected))}, not {got[1].strip()!r}"


def _type_name(expected: str) -> str:
    """`<class 'int'>` -> `int`, `typing.Literal['a', 'b']` -> `one of 'a', 'b'`."""
    plain = re.sub(r"<class '([\w.]+)'>", r"\1", expected).replace("NoneType", "null")
    return re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", plain)
