"""Draws how a training went: losses and AP over its steps, as SVG for light and dark pages."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from detdistill.show import colors

Row = Mapping[str, Any]
"""One line of a run folder's `metrics.jsonl`."""
Logs = Mapping[str, Sequence[Row]]
"""The lines of several runs, by the runs' names."""
Points = list[tuple[float, float]]
"""Steps and values."""

_TASK = "task/"
_COLUMNS = 3
_LEGEND_LETTERS = 100
"""As many fit in one line of the legend."""
_MOST_POINTS = 50
_MOST_TERMS = 3
"""A method with more terms than these is drawn as their sum."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": colors.GREY,
    "axes.labelcolor": colors.GREY,
    "axes.titlecolor": colors.GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": colors.GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": colors.GREY,
    "ytick.color": colors.GREY,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": colors.GREY,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def loss_curves(logs: Logs, *, title: str = "Losses over the training") -> str:
    """Every loss term in a panel of its own: the detectors' own first, then the methods'.

    A point is the mean of the lines it stands for. A method with many terms is drawn as their sum.

    Args:
        logs: lines of the runs by name; lines that are not of `kind` `train` are passed over.
        title: what a screen reader calls the drawing.

    Returns:
        An `svg` element, the same for the same logs.
    """
    series = {name: _loss_terms(rows) for name, rows in logs.items()}
    terms = list(dict.fromkeys(term for of_run in series.values() for term in of_run))
    terms.sort(key=lambda term: not term.startswith(_TASK))
    with mpl.rc_context(_STYLE):
        figure, panels = _panels(max(1, len(terms)))
        for term, axes in zip(terms, panels, strict=False):
            axes.set_title(_heading(term), loc="left")
            _draw_lines(axes, {name: of_run.get(term, []) for name, of_run in series.items()})
            axes.set_ylim(bottom=0)
        _add_legend(figure, logs)
        return _svg(figure, title, _summary(series, terms))


def ap_curves(logs: Logs, *, title: str = "AP over the training") -> str:
    """AP in percent at every evaluation during the training, a line per run.

    Args:
        logs: lines of the runs by name; lines that are not of `kind` `eval` are passed over.
        title: what a screen reader calls the drawing.

    Returns:
        An `svg` element, the same for the same logs.
    """
    series = {name: _ap(rows) for name, rows in logs.items()}
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _panels(1)
        axes.set_ylabel("AP (%)")
        _draw_lines(axes, series, marker="o")
        axes.set_ylim(bottom=0)
        _add_legend(figure, logs)
        return _svg(figure, title, _summary({n: {"AP": p} for n, p in series.items()}, ["AP"]))


def _loss_terms(rows: Iterable[Row]) -> dict[str, Points]:
    """Points by term: `task/cls`, `crosskd/cls`, or `pkd` for the sum of a method's many terms."""
    points: dict[str, Points] = {}
    for row in rows:
        if row.get("kind") != "train":
            continue
        task = {f"{_TASK}{name}": value for name, value in row.get("task", {}).items()}
        for name, value in (task | _few(row.get("distill", {}))).items():
            if _finite(value):
                points.setdefault(name, []).append((row["step"], value))
    return {name: _thinned(values) for name, values in points.items()}


def _few(terms: Mapping[str, float]) -> dict[str, float]:
    """Terms by name, those of a method that has many summed up under the method's name."""
    of_method: dict[str, dict[str, float]] = {}
    for name, value in terms.items():
        of_method.setdefault(name.partition("/")[0], {})[name] = value
    return {
        name: value
        for method, own in of_method.items()
        for name, value in (
            {method: math.fsum(own.values())} if len(own) > _MOST_TERMS else own
        ).items()
    }


def _ap(rows: Iterable[Row]) -> Points:
    measured = [row for row in rows if row.get("kind") == "eval"]
    points = [(row["step"], row["metrics"]["AP"]) for row in measured]
    return [(step, 100 * ap) for step, ap in points if _finite(ap) and ap >= 0]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _thinned(points: Points) -> Points:
    """At most `_MOST_POINTS` means of neighbouring points: small files, calm lines."""
    size = -(-len(points) // _MOST_POINTS)
    groups = (points[i : i + size] for i in range(0, len(points), size))
    return [_mean(group) for group in groups]


def _mean(points: Points) -> tuple[float, float]:
    steps, values = zip(*points, strict=True)
    return sum(steps) / len(steps), math.fsum(values) / len(values)


def _heading(term: str) -> str:
    if term.startswith(_TASK):
        return f"detection: {term.removeprefix(_TASK)}"
    return f"distillation: {term}" if "/" in term else f"distillation: {term}, sum of its terms"


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with that many panels, and they."""
    rows, columns = -(-count // _COLUMNS), min(count, _COLUMNS)
    size = (8.4, 3.4) if count == 1 else (8.4, 0.5 + 2.1 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
    for axes in panels[max(0, count - columns) :]:
        axes.set_xlabel("step")
    return figure, panels


def _draw_lines(axes: Axes, series: Mapping[str, Points], marker: str = "") -> None:
    """A line per run; a run keeps its colour in every panel, also where it has no points."""
    for number, points in enumerate(series.values()):
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=colors.of(number), marker=marker, markersize=3.5)


def _add_legend(figure: Figure, names: Collection[str]) -> None:
    handles = [
        Line2D([], [], color=colors.of(number), label=name) for number, name in enumerate(names)
    ]
    letters = sum(len(name) + 6 for name in names)
    lines = -(-letters // _LEGEND_LETTERS)
    columns = max(1, -(-len(handles) // max(1, lines)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)


def _summary(series: Mapping[str, Mapping[str, Points]], terms: Sequence[str]) -> str:
    """The last values in words, for those who cannot see the lines."""
    last = [
        f"{name}: "
        + ", ".join(f"{term} {of_run[term][-1][1]:.4g}" for term in terms if of_run.get(term))
        for name, of_run in series.items()
    ]
    return "Last values. " + "; ".join(last) + "."


def _svg(figure: Figure, title: str, description: str) -> str:
    """The figure with text as text, without a background, a date or a style for the whole page."""
    prefix = re.sub(r"\W+", "-", title.lower()).strip("-")
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": prefix}), io.StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
        drawn = file.getvalue()
    drawn = re.sub(r"<style.*?</style>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    return _titled(_with_own_ids(drawn, prefix), title, description, prefix)


def _with_own_ids(svg: str, prefix: str) -> str:
    """Ids that no other drawing on the page has, and only those that something refers to."""
    referred = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in referred else ""

    svg = re.sub(r'\sid="([^"]+)"', renamed, svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)


def _titled(svg: str, title: str, description: str, prefix: str) -> str:
    """With a name and a description for screen readers."""
    head = (
        f'<svg role="img" aria-labelledby="{prefix}-title {prefix}-description" '
        f'stroke-linejoin="round"'
    )
    words = (
        f'\n<title id="{prefix}-title">{escape(title)}</title>'
        f'\n<desc id="{prefix}-description">{escape(description)}</desc>'
    )
    opening, rest = svg.split(">", 1)
    return opening.replace("<svg", head, 1) + ">" + words + rest
