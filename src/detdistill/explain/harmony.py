"""Whether each detector is sure of its objects where its boxes fit them, and only there.

Source: TBD, which observes that the teacher has more harmonious predictions than the student.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from detdistill import masks
from detdistill.evaluate.alignment import Overlaps, correlation, overlaps
from detdistill.explain.figure import Figure, FigureUnavailableError
from detdistill.explain.parts import charts
from detdistill.explain.subject import Subject
from detdistill.masks import ObjectQuality
from detdistill.show import colors

HARMONIOUS = 0.5
ON_AN_OBJECT = 0.1
"""IoU from which a detection is one of an object, if badly placed."""

_BINS = 20
_SOURCE = "TBD, abstract (the paper's figures are not public)"


def figures(subject: Subject) -> Iterator[Figure]:
    """The harmony of each object, and the score of each detection against its overlap."""
    found = {label: overlaps(subject.truth, subject.detections(label)) for label in subject.labels}
    yield _harmony(found)
    yield _scores_and_overlaps(found)


def _harmony(found: Mapping[str, Overlaps]) -> Figure:
    scores = {label: _of_objects(of_label) for label, of_label in found.items()}
    return Figure(
        name="harmony",
        title="Harmony: how well objects are named and placed by one and the same detection",
        caption="Harmony is the harmonic mean of a detection's score and its IoU with the object "
        "of its class; each object has that of its best detection, 0 if there is none. Computed "
        f"from final detections (after NMS). Harmonious are objects of at least {HARMONIOUS}; "
        "curves further to the right are better.",
        source=_SOURCE,
        alt="; ".join(
            f"{label}: {100 * _share(score):.0f} % of the objects harmonious, "
            f"mean harmony {float(score.mean()):.2f}"
            for label, score in scores.items()
        ),
        rows=[
            {
                "detector": label,
                "harmony_from": place / _BINS,
                "harmony_to": (place + 1) / _BINS,
                "objects": int(count),
                "share_at_least": round(float(share), 6),
            }
            for label, score in scores.items()
            for place, (count, share) in enumerate(zip(_counts(score), _tails(score), strict=True))
        ],
        draw=partial(_draw_harmony, scores),
    )


def _of_objects(found: Overlaps) -> Tensor:
    """(objects,) the best harmony that a detection of each has."""
    return found.best(masks.harmony(ObjectQuality(found.score, found.iou)))


def _share(score: Tensor) -> float:
    return float((score >= HARMONIOUS).double().mean())


def _counts(score: Tensor) -> Tensor:
    """(bins,) objects by their harmony."""
    return torch.histc(score, bins=_BINS, min=0, max=1)


def _tails(score: Tensor) -> Tensor:
    """(bins,) share of the objects that reach the beginning of each bin."""
    starts = torch.arange(_BINS, dtype=score.dtype) / _BINS
    return (score.unsqueeze(1) >= starts).double().mean(dim=0)


def _draw_harmony(scores: Mapping[str, Tensor]) -> Drawing:
    counted, reached = charts.panels(2, width=4.5, height=3.4)
    paint = charts.paints(list(scores))
    for label, score in scores.items():
        counted.stairs(
            100 * (_counts(score) / len(score)).numpy(),
            torch.linspace(0, 1, _BINS + 1).numpy(),
            color=paint[label],
            lw=1.6,
        )
        ordered = score.sort(descending=True).values
        shares = 100 * torch.arange(1, len(score) + 1) / len(score)
        reached.plot(ordered.numpy(), shares.numpy(), color=paint[label])
        share = 100 * _share(score)
        reached.plot([HARMONIOUS], [share], "o", color=paint[label], label=f"{share:.0f} % {label}")
    counted.set(xlabel="harmony", ylabel="objects (%)", title="Objects by their harmony")
    title = f"Objects of at least this harmony; {HARMONIOUS} and more: harmonious"
    reached.set(xlabel="harmony", ylabel="objects (%)", title=title, xlim=(0, 1), ylim=(0, 100))
    reached.axvline(HARMONIOUS, color=colors.GREY, lw=0.8, ls=":")
    reached.legend(loc="upper right")
    return charts.drawing_of(counted)


def _scores_and_overlaps(found: Mapping[str, Overlaps]) -> Figure:
    placed = {label: _on_objects(of_label) for label, of_label in found.items()}
    return Figure(
        name="score-iou",
        title="Score of each detection against how well its box fits",
        caption="All final detections that overlap an object of their class by at least "
        f"{ON_AN_OBJECT}; the darker, the more (by their square root). r is the correlation of "
        "score and IoU: higher is better, since NMS and AP trust the score.",
        source=_SOURCE,
        alt="; ".join(
            f"{label}: {len(score)} detections, correlation {correlation(score, iou):.2f}"
            for label, (score, iou) in placed.items()
        ),
        rows=[
            {
                "detector": label,
                "iou_from": column / _BINS,
                "score_from": row / _BINS,
                "detections": count,
                "correlation": round(correlation(score, iou), 6),
            }
            for label, (score, iou) in placed.items()
            for column, counts in enumerate(_histogram(score, iou).tolist())
            for row, count in enumerate(map(int, counts))
            if count
        ],
        draw=partial(_draw_scores, placed),
    )


def _on_objects(found: Overlaps) -> tuple[Tensor, Tensor]:
    """Scores and overlaps of detections of objects."""
    chosen = found.iou >= ON_AN_OBJECT
    if not chosen.any():
        raise FigureUnavailableError("A detector finds no object at all.")
    return found.score[chosen], found.iou[chosen]


def _histogram(score: Tensor, iou: Tensor) -> Tensor:
    """(bins, bins) detections by overlap and score."""
    pairs = torch.stack([iou, score], dim=1)
    return torch.histogramdd(pairs, bins=[_BINS, _BINS], range=[0.0, 1.0, 0.0, 1.0]).hist


def _draw_scores(placed: Mapping[str, tuple[Tensor, Tensor]]) -> Drawing:
    axes = charts.panels(len(placed), width=2.6, height=2.9)
    for panel, (label, (score, iou)) in zip(axes, placed.items(), strict=True):
        counts = _histogram(score, iou).sqrt().T
        panel.imshow(counts.numpy(), cmap="Blues", origin="lower", extent=(0, 1, 0, 1))
        panel.plot([0, 1], [0, 1], color=colors.GREY, lw=0.8, ls=":")
        panel.set(title=f"{label}, r = {correlation(score, iou):.2f}", xlabel="IoU", ylabel="score")
    return charts.drawing_of(axes[0])
