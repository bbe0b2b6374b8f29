"""Which runs belong together, which part each plays, and what distillation gained.

An arm is the same training at different seeds. A comparison puts arms side by side that
trained the same student on the same data: alone, alone for longer, and distilled.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detdistill.report.numbers import Interval, Sample, sample
from detdistill.report.resampling import resampled
from detdistill.report.runs import CONTROL, Run, teacher_places
from detdistill.run_files import HARMLESS
from detdistill.typed import leaves

_NOT_THE_TRAINING = HARMLESS | {
    *("seed", "teacher", "teacher_cache", "winograd", "log_every", "validate_every"),
}
_SMALL_GAP = 0.01
"""A teacher that leads by less AP leaves no gap to speak of."""
_ALIKE = (0.75, 1.33)
"""How far the training times of two runs of equal compute may lie apart."""


class Role(Enum):
    """The part that an arm plays in a comparison."""

    TEACHER = "Teacher"
    ALONE = "Student alone"
    SHORTER = "Student alone (fewer steps)"
    LONGER = "Student alone (more steps)"
    EQUAL_COMPUTE = "Student alone (equal compute)"
    DISTILLED = "Distilled"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The same training at one seed or several."""

    role: Role
    label: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """The run that stands for the arm where only one can be shown."""
        return self.runs[0]

    @property
    def seeds(self) -> list[int]:
        """In the order of the runs."""
        return [run.seed for run in self.runs]

    def metric(self, name: str) -> Sample | None:
        """A COCO number over seeds, as fractions."""
        return sample([run.metric(name) for run in self.runs])

    @property
    def ap(self) -> float:
        """Mean AP as a fraction; zero where it is undefined."""
        found = self.metric("AP")
        return found.mean if found else 0.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Arms that trained the same student on the same data, and the teacher they learned from."""

    data: str
    images: int | None
    student: str
    teacher: Arm | None
    plain: tuple[Arm, ...]
    """The student without a teacher, for any number of steps."""
    changed_teacher: Path | None = None
    """Where other weights lie now than those that the students learned from."""
    distilled: tuple[Arm, ...]
    resampled: Mapping[Path, Tensor] = field(default_factory=dict)
    """AP of each run, by its folder, on resamples of the test images; empty if nobody asked."""

    @property
    def measured_teacher(self) -> Arm | None:
        """The teacher, if it is known what it reaches."""
        return self.teacher if self.teacher and self.teacher.metric("AP") else None

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All, in the order in which a table reads best."""
        return (*((self.teacher,) if self.teacher else ()), *self.students)

    @property
    def students(self) -> tuple[Arm, ...]:
        """All but the teacher."""
        return (*self.plain, *self.distilled)

    @property
    def alone(self) -> Arm | None:
        """The student alone for as many steps as the best distilled arm."""
        best = self.best
        return self.baseline(best) if best else next(iter(self.plain), None)

    def baseline(self, arm: Arm) -> Arm | None:
        """The best student alone that was trained for as many steps as `arm`."""
        equal = (
            plain
            for plain in self.plain
            if plain.first.steps == arm.first.steps and plain.role is not Role.EQUAL_COMPUTE
        )
        return max(equal, key=lambda plain: plain.ap, default=None)

    @property
    def best(self) -> Arm | None:
        """The distilled arm with the highest AP."""
        return max(self.distilled, key=lambda arm: arm.ap, default=None)

    @property
    def equal_compute(self) -> Arm | None:
        """The control that was given the computing time of the costliest distilled runs."""
        controls = (arm for arm in self.plain if arm.role is Role.EQUAL_COMPUTE)
        return max(controls, key=_steps, default=None)

    def gain(self, arm: Arm) -> Sample | None:
        """AP over the student alone, as fractions: seed by seed where both have the seed."""
        base = self.baseline(arm)
        return None if base is None or base is arm else difference(arm, base)

    @property
    def resamples(self) -> int:
        """How many resamples of the test images there are."""
        return max(map(len, self.resampled.values()), default=0)

    def gain_over_images(self, arm: Arm) -> Interval | None:
        """Where the mean gain would lie with other test images like these."""
        base = self.baseline(arm)
        if base is None or base is arm:
            return None
        seeds = set(arm.seeds).intersection(base.seeds) or {*arm.seeds, *base.seeds}
        ours, theirs = (self._resampled_ap(which, seeds) for which in (arm, base))
        return None if ours is None or theirs is None else percentiles(ours - theirs)

    def _resampled_ap(self, arm: Arm, seeds: Collection[int]) -> Tensor | None:
        """(R,) mean over runs; None if one was not resampled."""
        found = [self.resampled.get(run.folder) for run in arm.runs if run.seed in seeds]
        known = [aps for aps in found if aps is not None]
        return torch.stack(known).mean(0) if known and len(known) == len(found) else None

    def step_ratio(self, arm: Arm) -> float | None:
        """What a step costs in steps of the student alone: processor time, on a GPU the clock's."""
        base = self.baseline(arm)
        costs = [sample([run.step_cost for run in which.runs]) for which in (arm, base) if which]
        known = [cost.mean for cost in costs if cost]
        return known[0] / known[1] if len(known) == 2 and known[1] else None  # noqa: PLR2004

    def gap_closed(self, arm: Arm) -> float | None:
        """Share of the way from student to teacher; None where there is no way to go."""
        gain, base = self.gain(arm), self.baseline(arm)
        teacher = self.measured_teacher
        if gain is None or base is None or teacher is None:
            return None
        return gap_closed(base.ap + gain.mean, base.ap, teacher.ap)


def gap_closed(ap: float, student: float, teacher: float) -> float | None:
    """The share of the way from student to teacher that was made; None if there is no way to go.

    All are fractions.
    """
    gap = teacher - student
    return (ap - student) / gap if gap >= _SMALL_GAP else None


def difference(arm: Arm, base: Arm) -> Sample | None:
    """AP of `arm` minus AP of `base`: seed by seed where both have the seed, else of the means."""
    ours, theirs = _by_seed(arm), _by_seed(base)
    if not ours or not theirs:
        return None
    paired = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    return sample(paired or [arm.ap - base.ap])


def percentiles(values: Tensor) -> Interval:
    """The middle 95 % of resampled values."""
    bounds = torch.tensor([0.025, 0.975], dtype=values.dtype)
    low, high = values.nanquantile(bounds).tolist()
    return Interval(low, high)


def compare(runs: Sequence[Run], *, resamples: int = 0) -> list[Comparison]:
    """Sorts finished runs into comparisons, in the order in which they were given.

    Args:
        runs: of any students on any data.
        resamples: of the test images, for intervals; 0 for none.
    """
    found = _comparisons(runs)
    return [replace(each, resampled=resampled(_runs(each), resamples)) for each in found]


def _runs(comparison: Comparison) -> list[Run]:
    return [run for arm in comparison.students for run in arm.runs]


def _comparisons(runs: Sequence[Run]) -> list[Comparison]:
    teachers = _teachers(runs)
    settings: dict[tuple[str, int | None, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run not in teachers or run.methods:
            settings[run.setting].append(run)
    found = [
        _comparison(group, teachers)
        for of_any_teacher in settings.values()
        for group in _by_teacher(of_any_teacher)
    ]
    return found or ([_comparison(teachers, [])] if teachers else [])


def _by_teacher(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The runs that learned from the same weights, each time with those that learned from none."""
    teachers = dict.fromkeys(run.taught_by for run in runs if run.methods) or {None: None}
    for teacher in teachers:
        yield [run for run in runs if not run.methods or run.taught_by == teacher]


def _comparison(runs: Sequence[Run], teachers: Sequence[Run]) -> Comparison:
    data, images, student = runs[0].setting
    named = _named_teachers(runs, teachers)
    same = [teacher for teacher in named if _taught_all(teacher, runs)]
    arms = _labelled([_arm(group, runs) for group in _grouped(runs)])
    return Comparison(
        data=data,
        images=images,
        student=student,
        teacher=Arm(role=Role.TEACHER, label="Teacher", runs=tuple(same)) if same else None,
        changed_teacher=named[0].folder if named and not same else None,
        plain=tuple(sorted((arm for arm in arms if not _taught(arm)), key=_steps)),
        distilled=tuple(arm for arm in arms if _taught(arm)),
    )


def _taught(arm: Arm) -> bool:
    return arm.role is Role.DISTILLED


def _steps(arm: Arm) -> int:
    return arm.first.steps


def _teachers(runs: Sequence[Run]) -> list[Run]:
    """Runs that another run names as its teacher, or that are called so."""
    named = {path.resolve() for run in runs for path in teacher_places(run)}
    found = [run for run in runs if run.folder.resolve() in named]
    return found or [run for run in runs if run.name == "teacher" and not run.methods]


def _named_teachers(runs: Sequence[Run], teachers: Sequence[Run]) -> list[Run]:
    named = {path.resolve() for run in runs for path in teacher_places(run)}
    return [run for run in teachers if run.folder.resolve() in named]


def _taught_all(teacher: Run, runs: Sequence[Run]) -> bool:
    """Whether the runs learned from these very weights, as far as that was written down."""
    known = {run.taught_by for run in runs if run.methods} - {None}
    return not known or teacher.fingerprint in {*known, None}


def _grouped(runs: Iterable[Run]) -> list[list[Run]]:
    groups: dict[tuple[bool, str], list[Run]] = defaultdict(list)
    for run in runs:
        training = json.dumps(_training(run), sort_keys=True, default=str)
        groups[_is_control(run), training].append(run)
    return [sorted(group, key=lambda run: run.seed) for group in groups.values()]


def _training(run: Run) -> dict[str, Any]:
    return {k: v for k, v in run.experiment.items() if k not in _NOT_THE_TRAINING}


def _arm(group: Sequence[Run], runs: Sequence[Run]) -> Arm:
    first = group[0]
    if first.methods:
        return Arm(role=Role.DISTILLED, label="+".join(first.methods), runs=tuple(group))
    role = _plain_role(first, runs)
    label = role.value if any(run.methods for run in runs) else f"{first.student} alone"
    return Arm(role=role, label=label, runs=tuple(group))


def _plain_role(run: Run, runs: Sequence[Run]) -> Role:
    """Alone, unless its steps differ from those of the distilled runs that it stands beside."""
    taught = [other for other in runs if other.methods]
    if _is_control(run):
        return Role.EQUAL_COMPUTE
    budgets = {other.steps for other in taught} or {run.steps}
    if run.steps in budgets:
        return Role.ALONE
    if run.steps < max(budgets):
        return Role.SHORTER
    return Role.EQUAL_COMPUTE if _equal_compute(run, taught) else Role.LONGER


def _is_control(run: Run) -> bool:
    """Whether the folder's name says that the run was given another one's computing time."""
    return CONTROL in run.name and not run.methods


def _equal_compute(run: Run, taught: Sequence[Run]) -> bool:
    """Whether the run took about as long as one of the distilled runs."""
    low, high = _ALIKE
    seconds = run.cost("seconds") or 0.0
    theirs = [other.cost("seconds") or 0.0 for other in taught]
    return any(low * took <= seconds <= high * took for took in theirs if took)


def _labelled(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, with what tells them apart added to labels that occur twice."""
    labels = [arm.label for arm in arms]
    return [
        replace(arm, label=f"{arm.label} ({_peculiar(arm, _namesakes(arm, arms))})")
        if labels.count(arm.label) > 1
        else arm
        for arm in arms
    ]


def _namesakes(arm: Arm, arms: Iterable[Arm]) -> list[Arm]:
    return [other for other in arms if other.label == arm.label]


def _peculiar(arm: Arm, namesakes: Sequence[Arm]) -> str:
    """The settings of `arm` that differ among arms of the same label."""
    mine, *flat = (_settings(one) for one in (arm, *namesakes))
    keys = dict.fromkeys(key for settings in flat for key in settings)
    differing = [key for key in keys if len({str(settings.get(key)) for settings in flat}) > 1]
    return ", ".join(f"{key.split('.', 1)[-1]} {mine.get(key)}" for key in differing)


def _settings(arm: Arm) -> dict[str, Any]:
    """By their full names, without empty groups."""
    return {name: value for name, value in leaves(_training(arm.first)) if value != {}}


def _by_seed(arm: Arm) -> dict[int, float]:
    values = {run.seed: run.metric("AP") for run in arm.runs}
    return {seed: value for seed, value in values.items() if value is not None}
