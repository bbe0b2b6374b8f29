"""What the numbers say, in sentences: the headline, and what a reader must not conclude."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detdistill.report import sources
from detdistill.report.arms import Arm, Comparison, difference
from detdistill.report.numbers import counted, joined, points, share
from detdistill.report.runs import Run
from detdistill.report.table import setting

_FEW_SEEDS = 3
_FEW_IMAGES = 200
_NOISE = 0.05
"""AP by which two short single runs on the built-in data may differ by chance: 3 to 5 points."""
_BUILT_IN = "shapes"
_WIDE = 1.5
"""Slow over fast latency from which a machine counts as busy."""


def headline(comparison: Comparison) -> str:
    """The result in one sentence with its numbers, also when it is a bad one."""
    best = comparison.best
    if best is None:
        return _plain_headline(comparison)
    gain = comparison.gain(best)
    if gain is None:
        return (
            f"{comparison.student} distilled with {best.label} reaches {_ap(best)} AP; "
            "what it gained is unknown, because no run of the student alone is among these."
        )
    if gain.mean <= 0:
        return (
            f"Distillation did not help: {best.label}, the best method here, leaves "
            f"{comparison.student} at {_ap(best)} AP, {points(-gain.mean)} below the student alone."
        )
    gap = comparison.gap_closed(best)
    closed = f": {share(gap)} of the gap closed" if gap is not None else ""
    return f"With {best.label}, the student gained {gain.points()} AP from its teacher{closed}."


def subline(comparison: Comparison) -> str:
    """The numbers behind the headline, and the control that answers the obvious question."""
    best, alone, longer = comparison.best, comparison.alone, comparison.equal_compute
    if best is None or alone is None:
        return ""
    teacher = comparison.measured_teacher
    sentences = (
        f"{comparison.student}{_over(best)}: {_ap(alone)} AP alone, {_ap(best)} distilled"
        + (f"; the teacher has {_ap(teacher)}." if teacher else "."),
        _doubt(comparison, best),
        _control(best, longer) if longer else "",
    )
    return " ".join(filter(None, sentences))


def _over(arm: Arm) -> str:
    """How many runs the numbers stand on, where it is more than one."""
    return f", {counted(len(arm.runs), 'seed')}" if len(arm.runs) > 1 else ""


def _doubt(comparison: Comparison, arm: Arm) -> str:
    """That a gain may be chance, where it may."""
    gain = comparison.gain(arm)
    if gain is None:
        return ""
    if gain.sd is not None and abs(gain.mean) < gain.sd:
        return f"The gain of {arm.label} is smaller than its own spread over seeds."
    if len(arm.runs) > 1:
        return ""
    if not _is_built_in(comparison):
        return "One run each: only more seeds can tell how much of the gain is chance."
    if abs(gain.mean) < _NOISE:
        return (
            f"One run each: the {points(abs(gain.mean))} AP between {arm.label} and the student "
            "alone are within the noise of single runs."
        )
    return ""


def _is_built_in(comparison: Comparison) -> bool:
    return comparison.data.partition(":")[0] == _BUILT_IN


def _control(best: Arm, longer: Arm) -> str:
    ahead = difference(best, longer)
    start = f"Given the same computing time without a teacher, it reaches {_ap(longer)} AP"
    if ahead is None:
        return f"{start}."
    side = "less" if ahead.mean > 0 else "more"
    return f"{start}, {points(abs(ahead.mean))} {side} than distilled."


def _plain_headline(comparison: Comparison) -> str:
    arm = comparison.alone
    if arm is None:
        return f"No finished run of {setting(comparison)}."
    steps = counted(arm.first.steps, "step")
    return f"{comparison.student} reaches {_ap(arm)} AP after {steps} on {comparison.data}."


def _ap(arm: Arm | None) -> str:
    found = arm.metric("AP") if arm else None
    return found.points() if found else "an undefined"


def warnings(comparisons: Sequence[Comparison], unfinished: Sequence[Run]) -> list[str]:
    """What limits the conclusions, the weightiest first."""
    found = [text for comparison in comparisons for text in _about(comparison)]
    runs = [run for comparison in comparisons for arm in comparison.arms for run in arm.runs]
    found += _about_runs(runs)
    found += [_unfinished(run) for run in unfinished]
    return list(dict.fromkeys(found))


def _about(comparison: Comparison) -> Iterator[str]:
    yield from _about_test(comparison)
    yield from filter(None, (_doubt(comparison, arm) for arm in comparison.distilled))
    yield from _about_intervals(comparison)
    yield from _about_controls(comparison)
    yield from _about_seeds(comparison)
    yield from _about_pairing(comparison)
    yield from _about_teacher(comparison)
    yield from _about_readings(comparison)


def _about_intervals(comparison: Comparison) -> Iterator[str]:
    """Gains of which one of the two intervals leaves room for no gain at all."""
    gains = [(arm, comparison.gain(arm)) for arm in comparison.distilled]
    found = {
        "seeds": [(arm, gain.interval) for arm, gain in gains if gain],
        "test images": [(arm, comparison.gain_over_images(arm)) for arm, _ in gains],
    }
    for what, intervals in found.items():
        unsure = [arm.label for arm, interval in intervals if interval and interval.includes_zero]
        if unsure:
            yield (
                f"{joined(unsure)}: the 95 % interval of the gain over {what} includes zero, so "
                "there may be no gain."
            )


def _about_test(comparison: Comparison) -> Iterator[str]:
    runs = [run for arm in comparison.arms for run in arm.runs]
    tests = {run.test for run in runs if run.evaluation}
    if len(tests) > 1:
        names = joined(sorted(f"{n:,} {split} images of {data}" for data, split, n in tests))
        yield f"The rows were not measured on the same images ({names}): do not compare them."
    fewest = min((images for _, _, images in tests), default=0)
    if 0 < fewest < _FEW_IMAGES:
        yield f"Only {fewest} test images: AP moves by whole points with a few objects."


def _about_controls(comparison: Comparison) -> Iterator[str]:
    longer = comparison.equal_compute
    behind = [arm.label for arm in comparison.distilled if longer and arm.ap <= longer.ap]
    if longer and behind:
        yield (
            f"Given the same computing time, the student alone reaches {_ap(longer)} AP, which is "
            f"no less than with {joined(behind)}: here, longer training does as much as a teacher."
        )
    if comparison.distilled and not longer:
        yield (
            "The student alone at equal computing time is not among these runs. Distillation "
            "makes a step dearer, so part of its gain could also come from training longer."
        )
    if comparison.distilled and not comparison.alone:
        yield "The student alone at equal steps is not among these runs: no gain can be stated."


def _about_seeds(comparison: Comparison) -> Iterator[str]:
    fewest = min((len(set(arm.seeds)) for arm in comparison.students), default=0)
    several = len(comparison.students) > 1
    if several and fewest == 1:
        yield "At least one row stands on a single seed, so its spread is not known." + (
            " Single runs of short trainings like these differ by 3 to 5 AP: a smaller difference "
            "between two rows says nothing."
            if _is_built_in(comparison)
            else ""
        )
    elif several and fewest < _FEW_SEEDS:
        yield f"With {fewest} seeds a standard deviation is a rough guess."
    doubled = [arm.label for arm in comparison.arms if len(set(arm.seeds)) < len(arm.runs)]
    if doubled:
        yield f"{joined(doubled)}: a seed occurs twice, so the spread is understated."


def _about_pairing(comparison: Comparison) -> Iterator[str]:
    """Gains that are a difference of means over different seeds."""
    unpaired = [
        arm.label
        for arm in comparison.distilled
        if (base := comparison.baseline(arm)) and set(arm.seeds).isdisjoint(base.seeds)
    ]
    if unpaired:
        yield (
            f"{joined(unpaired)}: no seed in common with the student alone, so the gain is not "
            "paired and has no interval over seeds."
        )


def _about_teacher(comparison: Comparison) -> Iterator[str]:
    teacher, alone = comparison.measured_teacher, comparison.alone
    if comparison.teacher and not teacher:
        yield (
            f"The teacher {comparison.teacher.first.folder} was not measured: the share of the gap "
            "that was closed is unknown."
        )
    if comparison.changed_teacher:
        yield (
            f"{comparison.changed_teacher} is not the teacher that these students learned from: it "
            "has changed. The share of the gap that was closed is unknown."
        )
    if not (teacher and alone and comparison.distilled):
        return
    if teacher.ap < alone.ap:
        yield (
            f"The teacher ({_ap(teacher)} AP) is weaker than the student alone ({_ap(alone)} AP): "
            "it may not have been trained for long enough, and there is no gap to close."
        )
    elif _is_built_in(comparison) and teacher.ap - alone.ap < _NOISE:
        yield (
            f"The teacher ({_ap(teacher)} AP) is hardly better than the student alone "
            f"({_ap(alone)} AP): the share of the gap that was closed means little."
        )


def _about_readings(comparison: Comparison) -> Iterator[str]:
    used = {name for arm in comparison.distilled for name in arm.first.methods}
    if readings := sources.our_readings(sorted(used)):
        yield (
            f"{joined(readings)}: the authors published no code or not all formulas, so the "
            "numbers are those of our reading, not necessarily of the authors' method."
        )


def _about_runs(runs: Sequence[Run]) -> Iterator[str]:
    for name, what in (("cpu", "processors"), ("threads", "numbers of threads")):
        if len({str(run.environment.get(name)) for run in runs}) > 1:
            yield f"The runs used different {what}: their times cannot be compared."
    if len({str(run.environment.get("commit")) for run in runs}) > 1:
        yield "The runs come from different versions of the code."
    wide = [run for run in runs if run.latency and run.latency[2] > _WIDE * run.latency[1]]
    if wide:
        yield (
            "The latency of "
            f"{joined(sorted({run.student for run in wide}))} varied by more than half: the "
            "machine was busy with other work, so read it as a rough figure."
        )


def _unfinished(run: Run) -> str:
    state, step, steps = (run.status[key] for key in ("state", "step", "steps"))
    return (
        f"{run.folder} is not finished (state: {state}, step {step} of {steps or run.steps}): "
        "it has no row in the table."
    )
