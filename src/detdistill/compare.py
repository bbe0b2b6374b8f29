"""Methods beside each other: the same students, data and seeds, always with two controls.

The student alone is trained for as many steps, which shows what a teacher adds to a step, and for
as long as the costliest method takes, which shows what longer training would have added instead.
Every training is an ordinary run in an ordinary folder; a comparison only says which, and in what
order. What has finished is kept, so an interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from detdistill import classes, grid, progress
from detdistill.errors import UserError
from detdistill.files import write_json
from detdistill.report.checkpoints import evaluation_file, read_checkpoint
from detdistill.report.runs import CONTROL, is_run, read_run
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment

ALONE = "alone"

Methods = Mapping[str, dict[str, Any]]
"""Names of methods that work together, with the settings of each."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A student, and whom it learns from."""

    student: Experiment
    """Its training without a teacher; the seed is the comparison's."""
    teacher: Experiment | str
    """The training that comes first, or a run folder or `.safetensors` file that is there."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is compared: every pair with all methods, at every seed."""

    pairs: tuple[Pair, ...]
    methods: Mapping[str, Methods]
    """The rows of the table by name."""
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a comparison."""

    finished: tuple[Path, ...]
    """Run folders: the teachers that were trained, then seed by seed, the controls last."""
    failed: tuple[str, ...]
    """Why trainings failed, a sentence each."""


def run(
    plan: Plan,
    folder: Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    launch: grid.Launch | None = None,
) -> Outcome:
    """Trains everything that is not there yet; a training that fails does not stop the others.

    Args:
        plan: what is compared.
        folder: gets a run folder for each training.
        workers: trainings at a time; None for the number of GPUs, or of cores without any.
        overwrite: train anew what is there already.
        launch: starts a process for a command line, with a file for what it says; None for a
            Python on this machine.

    Raises:
        UserError: a folder holds another run, or no training succeeded.
        KeyboardInterrupt: after the trainings have saved where they are.
    """
    failed: list[UserError] = []
    train = partial(
        grid.run, workers=workers, overwrite=overwrite, launch=launch, on_failure=failed.append
    )
    jobs = first_jobs(plan, folder)
    train(jobs)
    for pair in plan.pairs:
        measure_teacher(pair, folder)
    longer = controls(plan, folder)
    train(longer)
    done = [job.folder for job in (*jobs, *longer) if _is_finished(job.folder)]
    if not done:
        raise UserError(f"No training succeeded. The first failed so: {failed[0]}")
    return Outcome(finished=tuple(done), failed=tuple(map(str, failed)))


def check(plan: Plan) -> None:
    """Refuses, before anything is trained, a plan that cannot work.

    Raises:
        UserError: nothing is to be trained, two trainings are one, or a name or setting is wrong.
    """
    from detdistill.interop.checkpoint import locate

    if not (plan.pairs and plan.methods and plan.seeds):
        raise UserError("A comparison needs a student, a method and a seed, at least one of each.")
    _refuse_namesakes(job.name for job in first_jobs(plan, Path()))
    for job in first_jobs(replace(plan, seeds=plan.seeds[:1]), Path()):
        _check(job.experiment)
    for teacher in {pair.teacher for pair in plan.pairs if isinstance(pair.teacher, str)}:
        locate(teacher)


def _refuse_namesakes(names: Iterable[str]) -> None:
    name, uses = Counter(names).most_common(1)[0]
    if uses > 1:
        raise UserError(
            f"Two trainings would be called {name}: name every student, row and seed once, and no "
            f"row {ALONE!r}, which is always there."
        )


def _check(training: Experiment) -> None:
    """What can be checked of a training while its teacher may not be there yet."""
    from detdistill.train import assembly, start

    experiments.check(training)
    assembly.parse_methods(training)
    start.weights_of(training)


def first_jobs(plan: Plan, folder: Path) -> list[grid.Job]:
    """The teachers, then seed by seed, so that a stopped comparison has whole seeds."""
    teachers = (_teacher_job(pair.teacher, folder) for pair in plan.pairs)
    arms: list[tuple[str, Methods]] = [(ALONE, {}), *plan.methods.items()]
    students = [
        _student_job(pair, name, methods, seed, folder)
        for seed in plan.seeds
        for pair in plan.pairs
        for name, methods in arms
    ]
    return [*{job.name: job for job in teachers if job}.values(), *students]


def controls(plan: Plan, folder: Path) -> list[grid.Job]:
    """The students alone, for as many steps as their costliest method's compute pays for.

    The teacher's forward pass is part of that compute, the teacher's own training is not. The
    steps stand in the folder's name: with a costlier method, the control is another training.
    """
    found = []
    for pair in plan.pairs:
        steps = _equal_compute_steps(plan, pair, folder)
        longer = replace(pair, student=replace(pair.student, steps=steps or pair.student.steps))
        name = f"{CONTROL}-{steps}"
        found += [_student_job(longer, name, {}, seed, folder) for seed in plan.seeds if steps]
    return found


def measure_teacher(pair: Pair, folder: Path) -> None:
    """Evaluates a teacher that has no run folder on what its students are tested on, once.

    One that does not know all of their classes has no number that could be compared with theirs.
    """
    if not isinstance(pair.teacher, str):
        return
    named = Path(pair.teacher)
    if is_run(named) or is_run(named.parent):
        return
    known = read_checkpoint(named, folder)
    if known is not None and known.evaluation.get("data") == pair.student.data:
        return
    if (measured := _measured(named, pair.student)) is not None:
        write_json(evaluation_file(named, folder), measured)


def _measured(named: Path, training: Experiment) -> dict[str, Any] | None:
    """What a run writes of its student, as far as it applies to a detector that was there.

    None if the detector lacks one of the classes.
    """
    from detdistill.evaluate import evaluate_detector, placed, voc
    from detdistill.interop import checkpoint
    from detdistill.train import assembly, assess

    dataset = assembly.open_whole(training, "test")
    detector = checkpoint.load(named)
    if classes.match(detector.spec.classes, dataset.classes, training.class_map).missing:
        return None
    fingerprint = checkpoint.fingerprint(detector)
    metrics, detections = evaluate_detector(placed(detector), dataset, class_map=training.class_map)
    of_voc = voc.numbers(training.data, dataset.ground_truth(), detections)
    return {
        "metrics": metrics.to_dict() | of_voc,
        "split": "test",
        "images": len(dataset),
        "data": training.data,
        "facts": assess.facts(detector, dataset),
        "fingerprint": fingerprint,
    }


def with_steps(training: Experiment, steps: int) -> Experiment:
    """The same training with other steps, a tenth of them for warm-up."""
    usual = replace(training.optimizer, warmup_steps=None)
    optimizer = replace(usual, warmup_steps=usual.warm_up(steps))
    return replace(training, steps=steps, optimizer=optimizer)


def equal_compute_steps(steps: int, alone: Sequence[Path], costliest: Sequence[Path]) -> int:
    """Steps of the student alone that cost as much as `steps` of other runs; never fewer.

    Args:
        steps: of both.
        alone: run folders of the student alone, at one seed or several.
        costliest: the same of what is to be paid for.
    """
    ratio = _median_cost(costliest) / _median_cost(alone)
    return max(steps, round(steps * ratio))


def teacher_folder(pair: Pair, folder: Path) -> Path:
    """Where the teacher's run lies, or the checkpoint that was named."""
    job = _teacher_job(pair.teacher, folder)
    return job.folder if job else Path(str(pair.teacher))


def student_folder(pair: Pair, name: str, seed: int, folder: Path) -> Path:
    """Where a row's run lies: `gfl-quick-w8-pkd-s0`."""
    return folder / f"{_word(pair.student.student)}-{_word(name)}-s{seed}"


def _equal_compute_steps(plan: Plan, pair: Pair, folder: Path) -> int | None:
    """Of one pair; None while there is no finished run of the student alone or of any method."""
    alone, *others = (_finished(plan, pair, name, folder) for name in (ALONE, *plan.methods))
    taught = [runs for runs in others if runs]
    if not alone or not taught:
        return None
    return equal_compute_steps(pair.student.steps, alone, max(taught, key=_median_cost))


def _finished(plan: Plan, pair: Pair, name: str, folder: Path) -> list[Path]:
    """A row's runs that have come to their end."""
    runs = (student_folder(pair, name, seed, folder) for seed in plan.seeds)
    return [run for run in runs if _is_finished(run)]


def _is_finished(run: Path) -> bool:
    return progress.read(run).state == "finished"


def _median_cost(folders: Sequence[Path]) -> float:
    """Of a step of finished runs."""
    return median(filter(None, (read_run(folder).step_cost for folder in folders)))


def _student_job(pair: Pair, name: str, methods: Methods, seed: int, folder: Path) -> grid.Job:
    """One training of a row, behind its teacher's."""
    run = student_folder(pair, name, seed, folder)
    training = replace(pair.student, seed=seed)
    if not methods:
        return grid.Job(name=run.name, experiment=experiments.without_teacher(training), folder=run)
    teacher = str(teacher_folder(pair, folder))
    first = _teacher_job(pair.teacher, folder)
    return grid.Job(
        name=run.name,
        experiment=replace(training, teacher=teacher, methods=dict(methods)),
        folder=run,
        after=(first.name,) if first else (),
    )


def _teacher_job(teacher: Experiment | str, folder: Path) -> grid.Job | None:
    """Its training; None for a checkpoint."""
    if isinstance(teacher, str):
        return None
    name = f"teacher-{_word(teacher.student)}"
    return grid.Job(name=name, experiment=teacher, folder=folder / name)


def _word(name: str) -> str:
    """A name, or the last part of a path, as part of a folder's name."""
    return re.sub(r"[^\w.+-]+", "-", Path(name).name.removesuffix(".safetensors"))
