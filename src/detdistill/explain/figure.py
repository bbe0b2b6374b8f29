"""What a figure is: numbers, a drawing of them, and the words that let it stand alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as Drawing

from detdistill.show import colors

Row = Mapping[str, Any]

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": colors.GREY,
    "xtick.color": colors.GREY,
    "ytick.color": colors.GREY,
    "xtick.labelcolor": colors.BLACK,
    "ytick.labelcolor": colors.BLACK,
    "grid.color": colors.GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "image.interpolation": "nearest",
    "figure.facecolor": colors.WHITE,
    "figure.constrained_layout.use": True,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.05,
}
"""How every figure is drawn: on white, for the screen and for print."""


class FigureUnavailableError(Exception):
    """This run cannot have the figure; the message says why, as a sentence."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure, ready to be written."""

    name: str
    """Of its files, without their ending."""
    title: str
    """What it shows, without the paper at hand."""
    caption: str
    """How to read it, in one to three sentences; what is better."""
    source: str
    """The paper and the figure it follows: `TID, figure 4`."""
    alt: str
    """What is to be seen, for those who cannot see it."""
    rows: Sequence[Row]
    """The numbers behind the drawing, flat; all with the same keys."""
    draw: Callable[[], Drawing]
    """Draws it, in `STYLE` if called as the command does."""
    group: str = ""
    """Figures of one group are variants of each other, to be shown one at a time ..."""
    tab: str = ""
    """... under this name: a pyramid level, or a detector."""
