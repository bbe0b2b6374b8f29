"""Pictures that turn out to be unreadable in the midst of a training, and how many may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from detdistill.data.dataset import Dataset
from detdistill.data.folder import too_many


class Damage(NamedTuple):
    """A picture that could not be read when it was its turn."""

    picture: int
    """Its number in the data set."""
    reason: str


class Ledger:
    """The unreadable pictures of a training.

    Args:
        dataset: the training data; what was left out when it was opened counts, too.
        skippable: largest share of pictures that may be skipped.
        known: the reasons of those that were found before, by their numbers.
    """

    def __init__(
        self, dataset: Dataset, skippable: float, known: Mapping[int, str] | None = None
    ) -> None:
        self.known = dict(known or {})
        self._left_out = dataset.left_out
        self._total = len(dataset) + dataset.left_out
        self._skippable = skippable
        self._noted: list[Damage] = []

    def note(self, damage: Damage) -> None:
        """Remembers what a stream tells."""
        self._noted.append(damage)

    def take_noted(self) -> list[Damage]:
        """What was noted since this was asked for last."""
        noted, self._noted = self._noted, []
        return noted

    def enter(self, damages: Iterable[Damage]) -> list[str]:
        """Takes in what all processes have noted; gives a line for each picture that is new.

        Raises:
            UserError: there are more than may be skipped.
        """
        new = {one.picture: one.reason for one in damages if one.picture not in self.known}
        self.known |= new
        count = self._left_out + len(self.known)
        share = f"{count} of {self._total} pictures"
        if new and count > self._skippable * self._total:
            reasons = [reason.rstrip(".") for reason in self.known.values()]
            raise too_many(f"Training data: {share}", reasons, self._skippable)
        return [f"{reason} Another picture takes its place ({share})." for reason in new.values()]
