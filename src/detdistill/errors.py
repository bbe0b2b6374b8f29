"""The one error that a user's mistake becomes, and the sentence for a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend. The message says what, where, why, and what to do.

    The command line prints it on one line, without a traceback, and exits with code 2.
    """


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is none of `choices`; it offers the nearest one."""
    known = sorted(choices)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")


class MissingExtraError(UserError):
    """Something needs packages that are installed on request only."""

    def __init__(self, what: str, extra: str, cause: ImportError) -> None:
        super().__init__(
            f"{what} needs packages that are not installed ({cause}): "
            f"pip install '.[{extra}]' where detdistill was installed from."
        )
