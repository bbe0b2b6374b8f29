"""The tables of results: one row per arm, columns in groups, best values marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from detdistill.report import numbers, sources
from detdistill.report.arms import Arm, Comparison, Role
from detdistill.report.numbers import NOTHING, Sample, sample
from detdistill.report.published import Published

_MEANING = {
    "AP": "average precision over IoU 0.50 to 0.95: the COCO number",
    "AP50": "average precision at IoU 0.50",
    "AP75": "average precision at IoU 0.75",
    "APs": "AP of small objects, under 32² pixels",
    "APm": "AP of medium objects",
    "APl": "AP of large objects, over 96² pixels",
    "AR100": "average recall with 100 detections an image",
}
ACCURACY = tuple(_MEANING)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A heading and what it stands for."""

    name: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Columns under a common heading."""

    name: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value as text; `best` where no other student is better."""

    text: str
    best: bool = False

    @classmethod
    def of(cls, text: str | None) -> Self:
        """A dash where there is no value."""
        return cls(text=NOTHING if text is None else text)


@dataclass(frozen=True, kw_only=True)
class Row:
    """An arm and its cells."""

    label: str
    detail: str
    teacher: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Body:
    """The rows of one comparison."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A caption, columns in groups, and a body for each comparison."""

    anchor: str
    caption: str
    groups: tuple[Group, ...]
    bodies: tuple[Body, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of all groups."""
        return tuple(column for group in self.groups for column in group.columns)


_ACCURACY_GROUPS = (
    Group(
        name="Average precision, by IoU",
        columns=tuple(Column(name=name, meaning=_MEANING[name]) for name in ACCURACY[:3]),
    ),
    Group(
        name="By size of the object",
        columns=tuple(Column(name=name, meaning=_MEANING[name]) for name in ACCURACY[3:6]),
    ),
    Group(
        name="Recall",
        columns=tuple(Column(name=name, meaning=_MEANING[name]) for name in ACCURACY[6:]),
    ),
    Group(
        name="Distillation",
        columns=(
            Column(name="Gain", meaning="AP over the student alone after as many steps"),
            Column(name="95 %, seeds", meaning="interval of the gain over seeds (Student's t)"),
            Column(name="95 %, images", meaning="the same over resampled test images"),
            Column(name="Gap closed", meaning="the gain as a share of the teacher's lead in AP"),
        ),
    ),
)
_COST_GROUPS = (
    Group(
        name="Size and speed",
        columns=(
            Column(name="Parameters", meaning="numbers that were trained"),
            Column(
                name="FLOPs",
                meaning="operations of a forward pass on an image, counted as the notes say",
            ),
            Column(name="Latency", meaning="time to detect: median (10th to 90th percentile)"),
            Column(name="Peak memory", meaning="most in tensors at once, beside the weights"),
        ),
    ),
    Group(
        name="Training, per run",
        columns=(
            Column(name="Steps", meaning="updates of the weights"),
            Column(name="Step", meaning="median time of a step"),
            Column(name="Cost", meaning="a step in steps of the student alone, teacher included"),
            Column(name="Time", meaning="wall clock of the training"),
            Column(name="CPU time", meaning="over all cores"),
            Column(name="Memory", meaning="peak of the training process"),
        ),
    ),
)


_SEVERAL = (
    "Values with ± are mean and standard deviation over n seeds; gains are of equal seeds, with an "
    "interval by Student's t."
)
_IMAGES = (
    "The interval over images has the middle 95 % of {:,} resamples of the test images, the same "
    "for all runs, with AP counted anew on each."
)


def tables(comparisons: Sequence[Comparison], against: Published | None = None) -> list[Table]:
    """Accuracy first, then what it costs to have it.

    Args:
        comparisons: measured here.
        against: a paper's numbers, which get a column of their own.
    """
    if not comparisons:
        return []
    accuracy = Table(
        anchor="accuracy",
        caption=f"Accuracy on the test images, in points of 100. {_origin(against)}",
        groups=(*_ACCURACY_GROUPS, *_published_group(against)),
        bodies=tuple(_body(each, partial(_accuracy, against=against)) for each in comparisons),
    )
    cost = Table(
        anchor="size-and-cost",
        caption="Size, speed and training cost.",
        groups=_COST_GROUPS,
        bodies=tuple(_body(comparison, _costs) for comparison in comparisons),
    )
    return [accuracy, cost]


def _origin(against: Published | None) -> str:
    if against is None:
        return "Every number was measured by these runs; none is from a paper."
    return "The last column is from a paper; every other number was measured by these runs."


def _published_group(against: Published | None) -> list[Group]:
    if against is None:
        return []
    meaning = "AP as the paper reports it, for the detectors in brackets; not measured here"
    return [Group(name="Published", columns=(Column(name=against.name, meaning=meaning),))]


def _body(comparison: Comparison, cells: Callable[[Comparison, Arm], list[Cell]]) -> Body:
    """The rows of a comparison, teacher first."""
    rows = tuple(_row(comparison, arm, cells(comparison, arm)) for arm in comparison.arms)
    return Body(heading=setting(comparison), rows=rows)


def setting(comparison: Comparison) -> str:
    """`gfl-mini-w8 on shapes, 300 labelled images`."""
    few = f", {comparison.images:,} labelled images" if comparison.images else ""
    return f"{comparison.student} on {comparison.data}{few}"


def _row(comparison: Comparison, arm: Arm, cells: Sequence[Cell]) -> Row:
    return Row(
        label=arm.label,
        detail=_detail(comparison, arm),
        teacher=arm.role is Role.TEACHER,
        cells=tuple(cells),
    )


def _detail(comparison: Comparison, arm: Arm) -> str:
    """What the label leaves open: the detector, whose reading a method is, the number of runs."""
    words = [arm.first.student] if arm.first.student != comparison.student else []
    if readings := sources.our_readings(arm.first.methods):
        words.append(f"our reading of {' and '.join(readings)}")
    if len(arm.runs) > 1:
        words.append(f"n = {len(arm.runs)}")
    return ", ".join(words)


def _accuracy(comparison: Comparison, arm: Arm, against: Published | None) -> list[Cell]:
    cells = [_metric(comparison, arm, name) for name in ACCURACY]
    published = [against.cell(arm)] if against else []
    return [*cells, *map(Cell.of, [*_distillation(comparison, arm), *published])]


def _distillation(comparison: Comparison, arm: Arm) -> Iterator[str | None]:
    """What a teacher added, how sure that is, and how far it went."""
    gain = comparison.gain(arm) if arm.role is Role.DISTILLED else None
    if gain is None:
        yield from (None,) * len(_ACCURACY_GROUPS[-1].columns)
        return
    gap = comparison.gap_closed(arm)
    yield numbers.with_sd(gain.mean, gain.sd, sign=True)
    for interval in (gain.interval, comparison.gain_over_images(arm)):
        yield interval.points() if interval else None
    yield None if gap is None else numbers.share(gap)


def _metric(comparison: Comparison, arm: Arm, name: str) -> Cell:
    value = arm.metric(name)
    if value is None:
        is_open = name == "AP" and arm.first.is_checkpoint
        return Cell(text="not measured" if is_open else NOTHING)
    return Cell(text=value.points(), best=_is_best(value, comparison, arm, name))


def _is_best(value: Sample, comparison: Comparison, arm: Arm, name: str) -> bool:
    """Whether `arm` is a student, has rivals, and none of them shows a higher value."""
    rivals = [other.metric(name) for other in comparison.students if other is not arm]
    means = [rival.mean for rival in rivals if rival]
    shown = round(value.mean, 3)
    return arm.role is not Role.TEACHER and bool(means) and shown >= round(max(means), 3)


def _costs(comparison: Comparison, arm: Arm) -> list[Cell]:
    return [*_detector(arm), *_training(comparison, arm)]


def _detector(arm: Arm) -> list[Cell]:
    return [
        _mean(arm, lambda arm: [run.fact("parameters") for run in arm.runs], numbers.amount),
        _mean(arm, lambda arm: [run.fact("flops") for run in arm.runs], numbers.amount),
        Cell(text=_latency(arm)),
        _mean(arm, lambda arm: [run.fact("peak_tensor_mb") for run in arm.runs], _megabytes),
    ]


def _training(comparison: Comparison, arm: Arm) -> list[Cell]:
    ratio = comparison.step_ratio(arm) if arm.role is Role.DISTILLED else None
    return [
        Cell(text=NOTHING if arm.first.is_checkpoint else f"{arm.first.steps:,}"),
        _cost(arm, "step_ms", lambda value: f"{value:.0f} ms"),
        Cell.of(None if ratio is None else f"\u00d7\u00a0{ratio:.2f}"),
        _cost(arm, "seconds", numbers.duration),
        _cost(arm, "cpu_seconds", numbers.duration),
        _cost(arm, "peak_memory_mb", _megabytes),
    ]


def _cost(arm: Arm, name: str, write: Callable[[float], str]) -> Cell:
    return _mean(arm, lambda arm: [run.cost(name) for run in arm.runs], write)


def _mean(
    arm: Arm, read: Callable[[Arm], Sequence[float | None]], write: Callable[[float], str]
) -> Cell:
    value = sample(read(arm))
    return Cell(text=NOTHING if value is None else write(value.mean).replace(" ", "\u00a0"))


def _megabytes(value: float) -> str:
    return f"{value:,.0f} MB" if value >= 10 else f"{value:.1f} MB"  # noqa: PLR2004


def _latency(arm: Arm) -> str:
    """The first run's, because medians of different moments do not average."""
    if arm.first.latency is None:
        return NOTHING
    median, low, high = arm.first.latency
    return f"{median:.1f}\u00a0ms ({low:.1f}\u2013{high:.1f})"


def notes(comparisons: Sequence[Comparison], against: Published | None = None) -> list[str]:
    """How the numbers were measured, as far as the runs wrote it down, and which were not."""
    arms = [arm for comparison in comparisons for arm in comparison.arms]
    return [*_measured(comparisons, arms), *([against.note(arms)] if against else [])]


def _measured(comparisons: Sequence[Comparison], arms: Sequence[Arm]) -> list[str]:
    several = any(len(arm.runs) > 1 for arm in arms)
    seeds = [_SEVERAL] if several else []
    resamples = max((comparison.resamples for comparison in comparisons), default=0)
    if resamples:
        seeds.append(_IMAGES.format(resamples))
    facts = [run.evaluation["facts"] for arm in arms for run in arm.runs if run.latency]
    if not facts:
        return seeds
    return [*seeds, _flops_note(facts), _latency_note(facts[0])]


def _flops_note(facts: Sequence[dict[str, Any]]) -> str:
    counts = {int(found.get("flops_per_multiply_add", 2)) for found in facts}
    words = " or ".join({1: "one", 2: "two"}[count] for count in sorted(counts))
    return f"FLOPs are per image; a multiply-add counts as {words}."


def _latency_note(facts: dict[str, Any]) -> str:
    where = f" on {facts['device']}" if facts.get("device") else ""
    threads = f" with {numbers.counted(facts['threads'], 'thread')}" if facts.get("threads") else ""
    images = numbers.counted(facts.get("batch_size", 1), "image")
    size = "\u00d7".join(map(str, facts.get("image_size", [])))
    of_size = f" of {size} pixels" if size else ""
    return (
        f"Latency is that of forward pass and non-maximum suppression for {images}{of_size}"
        f"{where}{threads}: median, and 10th to 90th percentile."
    )
