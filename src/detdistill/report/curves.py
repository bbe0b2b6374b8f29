"""Learning curves of the runs as SVG: detection losses, distillation losses, AP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from detdistill.report.arms import Comparison
from detdistill.report.runs import Run
from detdistill.report.table import setting
from detdistill.show import curves as show


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A drawing and what it is called."""

    title: str
    svg: Markup


def curves(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> list[Curve]:
    """For each comparison, and for unfinished runs: losses, and AP if measured on the way."""
    groups = {setting(comparison): _by_label(comparison) for comparison in comparisons}
    groups["Unfinished runs"] = {run.name: run for run in runs if not run.finished}
    return [curve for name, group in groups.items() for curve in _drawn(name, group)]


def _by_label(comparison: Comparison) -> dict[str, Run]:
    """The first run of every arm."""
    return {arm.label: arm.first for arm in comparison.arms}


def _drawn(name: str, runs: Mapping[str, Run]) -> Iterator[Curve]:
    logs = {label: run.log for label, run in runs.items() if _count(run, "train")}
    if logs:
        title = f"{name}: losses over the training"
        yield Curve(title=title, svg=_inline(show.loss_curves(logs, title=title)))
    measured = {label: run.log for label, run in runs.items() if _count(run, "eval") > 1}
    if measured:
        title = f"{name}: AP over the training, on images held out for watching it"
        yield Curve(title=title, svg=_inline(show.ap_curves(measured, title=title)))


def _count(run: Run, kind: str) -> int:
    return sum(entry.get("kind") == kind for entry in run.log)


def _inline(svg: str) -> Markup:
    """The drawing as a part of the page; `show` has escaped the names in it."""
    return Markup(svg)  # noqa: S704
