"""What keeps each detector from being perfect: boxes, classes, background, missed objects.

Source: TID, figure 3, which is the error analysis of the COCO toolkit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch

from detdistill.evaluate.errors import (
    KINDS,
    SIZES,
    Analysis,
    analyse,
    has_supercategories,
    shares,
)
from detdistill.explain.figure import Figure, Row
from detdistill.explain.parts import charts
from detdistill.explain.subject import Subject
from detdistill.show import colors

Analyses = Mapping[str, Analysis]
"""By the label of the detector."""

_SOURCE = "TID, figure 3 (error analysis of the COCO toolkit)"
_PAINT = {
    "C75": colors.BLUE,
    "C50": colors.SKY,
    "Loc": colors.GREEN,
    "Sim": colors.PINK,
    "Oth": colors.ORANGE,
    "BG": colors.RED,
    "FN": charts.PALE,
}
_MOST_CLASSES = 15
_READING = (
    "Colours, from the bottom: right at IoU 0.75 (C75) and at 0.5 (C50); then what is gained by "
    "forgiving boxes that are off (Loc, IoU 0.1 will do), similar classes (Sim), other classes "
    "(Oth), detections of background and second ones of an object (BG), objects not found (FN)."
)


def figures(subject: Subject) -> Iterator[Figure]:
    """Precision and recall by size of the objects, shares of each kind, shares by class."""
    analyses = {
        label: analyse(subject.truth, subject.detections(label)) for label in subject.labels
    }
    like = "" if has_supercategories(subject.truth) else " The data names no similar classes."
    first = next(iter(analyses.values()))
    for size in SIZES:
        if not np.isnan(first.curves(size)).any():
            yield _curves(analyses, size, like)
    yield _shares(analyses, like)
    yield _by_class(analyses, like)


def _curves(analyses: Analyses, size: str, like: str) -> Figure:
    objects = "objects of all sizes" if size == "all" else f"{size} objects"
    return Figure(
        name=f"errors-{size}",
        title=f"Precision and recall as errors are forgiven in turn, {objects}",
        caption=f"{_READING}{like} Numbers are areas; more blue is better. Mean over classes.",
        source=_SOURCE,
        alt=_in_words(analyses, size),
        rows=[row for label, made in analyses.items() for row in _points(label, made, size)],
        draw=partial(_draw_curves, analyses, size),
        group="errors",
        tab=f"{size} objects",
    )


def _shares(analyses: Analyses, like: str) -> Figure:
    return Figure(
        name="errors-shares",
        title="How much each kind of error costs each detector, in percent of a perfect score",
        caption=f"{_READING}{like} The shares of a detector sum up to 100; C75 and C50 are to be "
        "high, all others low; signed numbers are differences from the student alone. Mean over "
        "classes, objects of all sizes.",
        source=_SOURCE,
        alt=_in_words(analyses, "all"),
        rows=[
            {"detector": label, "size": size, "kind": kind, "area": area, "share": share}
            for label, made in analyses.items()
            for size in SIZES
            for kind, area, share in _numbers(made, size)
        ],
        draw=partial(_draw_shares, analyses),
    )


def _by_class(analyses: Analyses, like: str) -> Figure:
    classes = next(iter(analyses.values())).classes
    some = len(classes) > _MOST_CLASSES
    chosen = f"the {_MOST_CLASSES} on which the detectors differ most" if some else "all"
    return Figure(
        name="errors-classes",
        title="Kinds of errors by class, in percent of a perfect score",
        caption=f"{_READING}{like} Classes shown: {chosen}. More blue is better.",
        source=_SOURCE,
        alt="; ".join(
            f"{label}: right at IoU 0.5 {_extremes(made)}" for label, made in analyses.items()
        ),
        rows=[
            {"detector": label, "class": name, "kind": kind, "area": area, "share": share}
            for label, made in analyses.items()
            for place, name in enumerate(made.classes)
            for kind, area, share in zip(
                KINDS,
                _listed(made.areas()[:, place]),
                _listed(shares(made.areas())[:, place]),
                strict=True,
            )
        ],
        draw=partial(_draw_classes, analyses),
    )


def _numbers(made: Analysis, size: str) -> Iterator[tuple[str, float | None, float | None]]:
    """Kind, area under its curve, and what it adds to the one before."""
    areas = made.curves(size).mean(axis=1)
    yield from zip(KINDS, _listed(areas), _listed(shares(areas)), strict=True)


def _listed(values: np.ndarray) -> list[float | None]:
    """For JSON, which has no nan."""
    return [None if np.isnan(value) else round(float(value), 6) for value in values]


def _points(label: str, made: Analysis, size: str) -> Iterator[Row]:
    for kind, curve in zip(KINDS, made.curves(size), strict=True):
        for place, precision in enumerate(curve):
            yield {
                "detector": label,
                "kind": kind,
                "recall": place / 100,
                "precision": round(float(precision), 6),
            }


def _in_words(analyses: Analyses, size: str) -> str:
    """Shares in percent by detector."""
    return "; ".join(
        f"{label}: "
        + ", ".join(f"{kind} {100 * (share or 0):.0f}" for kind, _, share in _numbers(made, size))
        for label, made in analyses.items()
    )


def _extremes(made: Analysis) -> str:
    right = dict(zip(made.classes, made.areas()[1], strict=True))
    known = {name: area for name, area in right.items() if not np.isnan(area)}
    worst, best = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return f"{100 * known[worst]:.0f} ({worst}) to {100 * known[best]:.0f} ({best})"


def _draw_curves(analyses: Analyses, size: str) -> Drawing:
    axes = charts.panels(len(analyses), width=2.6, height=4.4)
    recall = np.linspace(0, 1, 101)
    for panel, (label, made) in zip(axes, analyses.items(), strict=True):
        curves = made.curves(size)
        layers = [np.zeros_like(recall), *curves]
        for paint, (below, above) in zip(_PAINT.values(), pairwise(layers), strict=True):
            panel.fill_between(recall, below, above, facecolor=paint, edgecolor="white", lw=0.4)
        panel.set(title=label, xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
        panel.legend(
            handles=[
                Patch(facecolor=paint, label=f"{area:.2f} {kind}, {KINDS[kind]}")
                for (kind, paint), area in zip(_PAINT.items(), curves.mean(axis=1), strict=True)
            ][::-1],
            loc="upper center",
            bbox_to_anchor=(0.5, -0.22),
        )
        panel.set_box_aspect(1)
    return charts.drawing_of(axes[0])


def _draw_shares(analyses: Analyses) -> Drawing:
    values = {
        label: [100 * (share or 0) for _, _, share in _numbers(made, "all")]
        for label, made in analyses.items()
    }
    kinds = [f"{kind}\n{words}" for kind, words in KINDS.items()]
    axes = charts.grouped_bars(kinds, values, form=".1f")
    axes.set_ylabel("share of a perfect score (%)")
    return charts.drawing_of(axes)


def _draw_classes(analyses: Analyses) -> Drawing:
    classes = next(iter(analyses.values())).classes
    places = _most_different(analyses)
    axes = charts.panels(len(analyses), width=2.9, height=1.2 + 0.22 * len(places))
    for panel, (label, made) in zip(axes, analyses.items(), strict=True):
        _draw_stacks(panel, 100 * shares(made.areas())[:, places])
        panel.set(title=label, xlim=(0, 100), xlabel="share (%)")
        panel.set_yticks(range(len(places)), [classes[place] for place in places])
        panel.tick_params(axis="y", length=0, labelleft=panel is axes[0])
    drawing = charts.drawing_of(axes[0])
    handles = [Patch(facecolor=paint, label=KINDS[kind]) for kind, paint in _PAINT.items()]
    drawing.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return drawing


def _draw_stacks(axes: Axes, widths: np.ndarray) -> None:
    """(7, classes) stacked bars, one below the other."""
    lefts = np.cumsum(widths, axis=0) - widths
    for paint, width, left in zip(_PAINT.values(), widths, lefts, strict=True):
        axes.barh(range(len(width)), width, 0.8, left=left, color=paint, edgecolor="white", lw=0.4)
    axes.invert_yaxis()


def _most_different(analyses: Analyses) -> list[int]:
    """Places of the classes with objects on which the detectors differ most, in their order."""
    right = np.stack([made.areas()[1] for made in analyses.values()])
    known = np.flatnonzero(~np.isnan(right).any(axis=0))
    spread = np.ptp(right[:, known], axis=0)
    return sorted(known[np.argsort(-spread, kind="stable")[:_MOST_CLASSES]].tolist())
