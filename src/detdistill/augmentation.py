"""What may happen to training pictures by chance, as settings; `data.augment` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detdistill.errors import UserError


@dataclass(kw_only=True)
class Augmentation:
    """Random changes of training pictures beside `flip`; evaluation never sees them."""

    short_sides: tuple[int, ...] = ()
    """Multi-scale training: lengths of the shorter side, as [640,672,704,736,768,800], of which
    every picture gets one; the longer side stays within the second length of `resize`."""
    sampling: Literal["choice", "range"] = "choice"
    """Whether a picture gets one of `short_sides`, or any length from the least to the largest."""
    jitter: tuple[float, float] | None = None
    """Large-scale jitter, usually [0.1,2]: a picture is scaled to fit into `crop` times a random
    number between these; what then exceeds `crop` is cut off at random, what lacks is padded.
    `resize` is left to the evaluation."""
    crop: int | None = None
    """Side of the square that `jitter` fills, such as 1024; None for that of `letterbox`."""
    visible: float = 0.1
    """Least share of an object's box that a cut must leave; what has less is no object any more."""
    photometric: bool = False
    """Change brightness, contrast, saturation, hue and the order of channels, each with
    probability one half, as SSD does."""

    @property
    def is_random(self) -> bool:
        """Whether a picture hardly ever looks as it looked before."""
        return bool(self.short_sides or self.jitter or self.photometric)


def check(settings: Augmentation, *, resize: tuple[int, int] | None, letterbox: int | None) -> None:
    """Refuses settings that cannot work.

    Raises:
        UserError: a number is out of range, or settings contradict each other or the size that
            pictures have in evaluation.
    """
    sides, jitter, crop = settings.short_sides, settings.jitter, settings.crop
    _require(all(side >= 1 for side in sides), "short_sides", sides, "lengths above 0")
    low, high = jitter or (1, 1)
    _require(0 < low <= high, "jitter", jitter, "two factors above 0, the smaller one first")
    _require(crop is None or crop >= 1, "crop", crop, "at least 1, or null")
    _require(0 <= settings.visible <= 1, "visible", settings.visible, "between 0 and 1")
    if sides and jitter:
        raise UserError("augment.short_sides and augment.jitter exclude each other: choose one.")
    if sides and not resize:
        raise UserError(
            "augment.short_sides needs resize, which evaluation uses and whose second length "
            "limits the longer side, such as [800,1333]."
        )
    if crop and not jitter:
        raise UserError("augment.crop is the square that augment.jitter fills: set both.")
    if jitter and not (crop or letterbox):
        raise UserError(
            "augment.jitter needs augment.crop, the side of the square that it fills, such as "
            "1024, or letterbox."
        )


def _require(holds: bool, name: str, value: object, what: str) -> None:
    if not holds:
        raise UserError(f"augment.{name} is {value}, but must be {what}.")
