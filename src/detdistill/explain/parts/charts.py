"""Bars and panels, and the colour that each detector keeps in every figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from detdistill.explain.roles import ALONE, TEACHER
from detdistill.show import colors

PALE = "#d9d9d9"
_BAR = 0.4
"""Inches."""
_GROUP = 0.84
"""Share of a group's width that its bars take."""
_ACROSS = 4
"""Panels side by side, at most."""


def paints(labels: Sequence[str]) -> dict[str, str]:
    """A colour per detector: grey for the teacher, then the usual ones."""
    students = [label for label in labels if label != TEACHER]
    return {TEACHER: colors.GREY} | {label: colors.of(i) for i, label in enumerate(students)}


def panels(count: int, *, width: float, height: float) -> list[Axes]:
    """That many equal panels of `width` x `height` inches, in rows."""
    across = min(count, _ACROSS)
    rows = -(-count // across)
    drawing = Drawing(figsize=(across * width, rows * height))
    return [drawing.add_subplot(rows, across, number + 1) for number in range(count)]


def drawing_of(axes: Axes) -> Drawing:
    """The drawing that a panel is in."""
    drawing = axes.get_figure(root=True)
    if drawing is None:
        raise ValueError("this panel is in no drawing")
    return drawing


def grouped_bars(
    groups: Sequence[str], values: Mapping[str, Sequence[float]], *, form: str
) -> Axes:
    """Bars side by side for every group, each with its number upon it.

    Distilled students have a second number, the difference from the student alone, if it is there.

    Args:
        groups: what stands below the bars.
        values: one number per group, by detector.
        form: of the numbers, as `.1f`.
    """
    (axes,) = panels(1, width=max(7, 1 + _BAR * len(groups) * len(values)), height=3.6)
    width = _GROUP / len(values)
    paint = paints(list(values))
    for place, (label, heights) in enumerate(values.items()):
        shift = (place - (len(values) - 1) / 2) * width
        spots = [group + shift for group in range(len(groups))]
        bars = axes.bar(spots, heights, width * 0.94, color=paint[label], label=label)
        axes.bar_label(bars, list(_numbers(label, values, form)), fontsize=7, padding=1.5)
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    axes.margins(x=0.01, y=0.14)
    axes.grid(axis="y")
    legend_above(axes)
    return axes


def _numbers(label: str, values: Mapping[str, Sequence[float]], form: str) -> Iterator[str]:
    """What stands upon the bars of a detector."""
    heights, alone = values[label], values.get(ALONE)
    for group, height in enumerate(heights):
        if alone is None or label in {TEACHER, ALONE}:
            yield f"{height:{form}}"
        else:
            yield f"{height - alone[group]:+{form}}\n{height:{form}}"


def legend_above(axes: Axes) -> None:
    """The legend of a panel in one line above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    drawing_of(axes).legend(handles, labels, loc="outside upper left", ncols=len(labels))
