"""Which classes of two lists are the same: by name, or as somebody says."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from detdistill.errors import UserError, unknown_name

SHOWN = 8
"""Names of a list that are written out."""
ALIKE = 0.6
"""How alike two names must be for one to be offered in the place of the other, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassMatch:
    """Where the classes of one list stand in another."""

    theirs: tuple[str, ...]
    """What a detector knows."""
    mine: tuple[str, ...]
    """What it is asked for, such as the classes of a student or of a data set."""
    places: tuple[int | None, ...]
    """For each of mine its number among theirs; None if it is not there."""

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The number among theirs and among mine of each class that is in both, in my order."""
        return tuple((their, my) for my, their in enumerate(self.places) if their is not None)

    @property
    def names(self) -> dict[str, str]:
        """Of the classes in both, theirs and mine."""
        return {self.theirs[their]: self.mine[my] for their, my in self.pairs}

    @property
    def missing(self) -> tuple[str, ...]:
        """Mine that are not there."""
        return tuple(
            name for name, their in zip(self.mine, self.places, strict=True) if their is None
        )

    @property
    def extra(self) -> tuple[str, ...]:
        """Theirs that are not asked for."""
        return tuple(name for name in self.theirs if name not in self.names)

    @property
    def is_by_number(self) -> bool:
        """Whether class k of one list is class k of the other, and there are no more."""
        return self.places == tuple(range(len(self.theirs)))

    def in_words(self) -> list[str]:
        """Which classes of a student are among a teacher's, unless the lists are the same."""
        if self.theirs == self.mine and self.is_by_number:
            return []
        renamed = [f"{their} is {my}" for their, my in self.names.items() if their != my]
        words = (
            f"{len(self.pairs)} of the student's {len(self.mine)} classes are among the teacher's "
            f"{len(self.theirs)}"
        )
        lines = [f"{words}: {shortened(renamed)}" if renamed else words]
        if self.missing:
            lines.append(
                f"note: the teacher does not know {shortened(self.missing)}: scores and objects of "
                "these classes are left out of the distillation"
            )
        return lines


def match(
    theirs: Sequence[str], mine: Sequence[str], given: Mapping[str, str | None] | None = None
) -> ClassMatch:
    """Finds the classes that are in both lists.

    Names that are equal belong together. So do, among the rest, names that differ in case, spaces,
    hyphens and underscores only, unless two of one list would be the same then.

    Args:
        theirs: what a detector knows.
        mine: what it is asked for.
        given: which of theirs stands for which of mine, whatever their names; None for none.

    Raises:
        UserError: `given` names a class that is not there, or one of mine twice.
    """
    found = _checked(given or {}, theirs, mine)
    for form in (str, _form):
        left = _by_form((name for name in theirs if name not in found), form)
        wanted = _by_form((name for name in mine if name not in found.values()), form)
        found |= {left[key]: wanted[key] for key in left if key in wanted}
    numbers = {my: list(theirs).index(their) for their, my in found.items()}
    return ClassMatch(
        theirs=tuple(theirs), mine=tuple(mine), places=tuple(numbers.get(name) for name in mine)
    )


def other_classes(detector: str, found: ClassMatch) -> str:
    """A sentence: which classes a detector and the data do not share, and what could be meant.

    Args:
        detector: such as `The teacher runs/teacher`.
        found: its classes among the data's.
    """
    sides = (("it does not know", found.missing), ("the data does not have", found.extra))
    parts = [f"{what} {shortened(names)}" for what, names in sides if names]
    said = "; ".join(parts or ["their order or spelling differs"])
    return f"{detector} was trained on other classes than the data: {said}.{_hint(found)}"


def shortened(names: Sequence[str]) -> str:
    """`a, b, c`, and how many more there are."""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def _checked(
    given: Mapping[str, str | None], theirs: Sequence[str], mine: Sequence[str]
) -> dict[str, str | None]:
    """What was given, if it speaks of classes that there are."""
    wanted = [name for name in given.values() if name is not None]
    for kind, names, known in (("detector", given, theirs), ("data", wanted, mine)):
        for name in names:
            if name not in known:
                raise unknown_name(f"class of the {kind} (class_map)", name, known)
    for name, count in Counter(wanted).items():
        if count > 1:
            raise UserError(
                f"class_map has {count} classes of the detector for {name!r}, for which only "
                "one can stand: choose the one that fits best."
            )
    return dict(given)


def _by_form(names: Iterable[str], form: Callable[[str], str]) -> dict[str, str]:
    """Each name by its form, without those whose form is another's too."""
    forms = [(form(name), name) for name in names]
    count = Counter(key for key, _ in forms)
    return {key: name for key, name in forms if count[key] == 1}


def _form(name: str) -> str:
    """A name without what is often written in another way: `Traffic_light` -> `trafficlight`."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())


def _hint(found: ClassMatch) -> str:
    """The two names that could mean the same, if any are alike."""
    pairs = ((their, my) for their in found.extra for my in found.missing)
    alike = [(SequenceMatcher(None, _form(a), _form(b)).ratio(), a, b) for a, b in pairs]
    ratio, their, my = max(alike, default=(0.0, "", ""))
    return f" Nearest: its {their!r} and {my!r}." if ratio >= ALIKE else ""
