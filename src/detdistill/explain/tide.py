"""How much AP50 each kind of error costs each detector, were it the only one to be mended.

Source: BCKD, figure 4, which is made with TIDE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from matplotlib.figure import Figure as Drawing

from detdistill.errors import UserError
from detdistill.evaluate import coco
from detdistill.evaluate.coco import TIDE_KINDS, Tide
from detdistill.explain.figure import Figure, FigureUnavailableError
from detdistill.explain.parts import charts
from detdistill.explain.subject import Subject

_NAMES = {
    "Cls": "class",
    "Loc": "place",
    "Both": "class\nand place",
    "Dupe": "duplicate",
    "Bkg": "back-\nground",
    "Miss": "missed",
    "FP": "all false\npositives",
    "FN": "all not\nfound",
}


def figures(subject: Subject) -> Iterator[Figure]:
    """Bars by kind of error, a bar per detector."""
    found = {label: _tide(subject, label) for label in subject.labels}
    yield Figure(
        name="tide",
        title="AP50 lost to each kind of error",
        caption="By how many points AP50 would rise if this kind of error alone were mended; lower "
        "is better. Class: the wrong one on a box that fits; place: the right class, IoU 0.1 to "
        "0.5; background: IoU below 0.1 with any object; missed: no detection came near. The two "
        "groups at the right overlap with the others; signed numbers are differences from the "
        "student alone.",
        source="BCKD, figure 4 (TIDE)",
        alt="; ".join(_in_words(label, made) for label, made in found.items()),
        rows=[
            {
                "detector": label,
                "kind": kind,
                "ap50_gain": round(made.gains[kind], 6),
                "count": made.counts.get(kind),
                "ap50": round(made.ap50, 6),
            }
            for label, made in found.items()
            for kind in TIDE_KINDS
        ],
        draw=partial(_draw, found),
    )


def _tide(subject: Subject, label: str) -> Tide:
    try:
        return coco.tide(subject.truth, subject.detections(label))
    except UserError as refusal:
        raise FigureUnavailableError(str(refusal)) from refusal


def _in_words(label: str, made: Tide) -> str:
    gains = ", ".join(f"{kind} {100 * made.gains[kind]:.1f}" for kind in TIDE_KINDS)
    return f"{label} with AP50 {100 * made.ap50:.1f}: {gains}"


def _draw(found: Mapping[str, Tide]) -> Drawing:
    values = {
        label: [100 * made.gains[kind] for kind in TIDE_KINDS] for label, made in found.items()
    }
    axes = charts.grouped_bars([_NAMES[kind] for kind in TIDE_KINDS], values, form=".1f")
    axes.axvline(TIDE_KINDS.index("FP") - 0.5, color="black", lw=0.8, ls=":")
    axes.set_ylabel("AP50 to be gained (points)")
    return charts.drawing_of(axes)
