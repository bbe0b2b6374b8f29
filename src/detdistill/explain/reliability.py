"""Whether each detector's scores can be taken at their word: score against mean overlap.

Source: reliability diagrams; GFL trains scores to be the IoU of the box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from matplotlib.figure import Figure as Drawing

from detdistill.evaluate.alignment import Calibration, calibration, overlaps
from detdistill.explain.figure import Figure
from detdistill.explain.parts import charts
from detdistill.explain.subject import Subject
from detdistill.show import colors


def figures(subject: Subject) -> Iterator[Figure]:
    """A line per detector: mean overlap in each range of scores."""
    found = {
        label: calibration(overlaps(subject.truth, subject.detections(label)))
        for label in subject.labels
    }
    yield Figure(
        name="reliability",
        title="How well boxes fit objects of their class, by the detector's score",
        caption="All final detections in ranges of scores; a detection on no object of its class "
        "has IoU 0. On the dotted line a score is the IoU to expect; below it the detector is "
        "surer than its boxes deserve. The number is the mean distance from the line: lower is "
        "better.",
        source="reliability diagrams; GFL trains scores to be the IoU",
        alt="; ".join(f"{label}: mean distance {made.error:.3f}" for label, made in found.items()),
        rows=[
            {"detector": label, "detections": int(count), "score": score, "iou": iou}
            for label, made in found.items()
            for count, score, iou in zip(
                made.count.tolist(), made.score.tolist(), made.iou.tolist(), strict=True
            )
            if count
        ],
        draw=partial(_draw, found),
    )


def _draw(found: Mapping[str, Calibration]) -> Drawing:
    (axes,) = charts.panels(1, width=4.6, height=4)
    paint = charts.paints(list(found))
    axes.plot([0, 1], [0, 1], color=colors.GREY, lw=0.8, ls=":")
    for label, made in found.items():
        known = made.count > 0
        axes.plot(
            made.score[known].numpy(),
            made.iou[known].numpy(),
            color=paint[label],
            marker="o",
            markersize=3.5,
            label=f"{made.error:.3f} {label}",
        )
    axes.set(xlabel="mean score", ylabel="mean IoU", xlim=(0, 1), ylim=(0, 1))
    axes.set_box_aspect(1)
    axes.grid(visible=True)
    axes.legend(loc="upper left")
    return charts.drawing_of(axes)
