"""The colours of all pictures: told apart by people with any colour vision.

Source: Okabe and Ito, "Color Universal Design", 2008; black and yellow are left out, which vanish
on a dark or a light page.
"""

from __future__ import annotations

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
PINK = "#CC79A7"
SKY = "#56B4E9"
RED = "#D55E00"
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
"""Neighbours differ most."""

GREY = "#7d7d7d"
"""Text and lines that can be read on white and on black alike."""
WHITE = "#ffffff"
BLACK = "#000000"


def of(number: int) -> str:
    """A colour for the class or curve with this number; they repeat after six."""
    return SERIES[number % len(SERIES)]


def ink(background: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = (int(background[i : i + 2], 16) for i in (1, 3, 5))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return BLACK if luma > 140 else WHITE  # noqa: PLR2004
