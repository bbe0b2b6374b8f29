"""What objects and background, or positives and negatives, cost apart over the training.

Source: DeFeat, figures 5 and 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure as Drawing

from detdistill.explain.figure import Figure, FigureUnavailableError, Row
from detdistill.explain.parts.sheets import slug
from detdistill.explain.subject import Subject
from detdistill.report.runs import Run
from detdistill.show import colors

_PAIRS = (
    ("object", "background"),
    ("foreground", "background"),
    ("backbone_object", "backbone_background"),
    ("positive", "negative"),
    ("main", "valuable"),
)
"""Terms of one loss, apart for two parts of a picture."""

Points = list[tuple[int, float]]
"""Steps and values."""


def figures(subject: Subject) -> Iterator[Figure]:
    """A figure per distilled student and pair of terms."""
    pairs = [
        (label, run, method, pair)
        for label in subject.distilled
        if (run := subject.parts[label].run)
        for method in run.methods
        for pair in _PAIRS
        if all(_points(run, f"{method}/{term}") for term in pair)
    ]
    if not pairs:
        raise FigureUnavailableError(
            "No method of these runs has a loss for objects and one for background, such as DeFeat."
        )
    for label, run, method, pair in pairs:
        yield _figure(label, run, method, pair)


def _points(run: Run, term: str) -> Points:
    """What was logged of a term."""
    return [
        (line["step"], line["distill"][term])
        for line in run.log
        if line.get("kind") == "train" and term in line["distill"]
    ]


def _figure(label: str, run: Run, method: str, pair: Sequence[str]) -> Figure:
    settings = run.experiment["methods"][method]
    lines = {term: _points(run, f"{method}/{term}") for term in pair}
    weights = {term: settings.get(f"{term}_weight") for term in pair}
    last = " and ".join(f"{term} {points[-1][1]:.3g}" for term, points in lines.items())
    return Figure(
        name=slug(f"decoupled-{label}-{method}-{pair[0]}"),
        title=f"Losses of {method} for {pair[0]} and {pair[1]} over the training",
        caption="Each loss is a mean over its own part of the pictures, times its weight; what "
        "falls faster is easier to imitate, and what is far below the other hardly teaches. "
        f"At the end: {last}.",
        source="DeFeat, figures 5 and 6",
        alt=f"Two lines over the steps of {label}. At the end: {last}.",
        rows=list(_rows(lines, weights)),
        draw=lambda: _draw(lines, weights),
        group=f"decoupled-{method}-{pair[0]}",
        tab=label,
    )


def _rows(lines: Mapping[str, Points], weights: Mapping[str, float | None]) -> Iterator[Row]:
    for term, points in lines.items():
        for step, value in points:
            yield {"term": term, "weight": weights[term], "step": step, "loss": value}


def _draw(lines: Mapping[str, Points], weights: Mapping[str, float | None]) -> Drawing:
    drawing = Drawing(figsize=(6.4, 3.4))
    axes = drawing.subplots()
    for number, (term, points) in enumerate(lines.items()):
        weight = weights[term]
        name = term if weight is None else f"{term} (weight {weight:g})"
        axes.plot(*zip(*points, strict=True), color=colors.of(number), label=name)
    axes.set(xlabel="step", ylabel="loss, weight included")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True)
    axes.legend()
    return drawing
