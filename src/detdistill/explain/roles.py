"""Which of the named runs plays which part: teacher, student alone, distilled students."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detdistill.errors import UserError
from detdistill.interop import checkpoint
from detdistill.report.runs import Run, find_runs, is_run, read_run, teacher_places

TEACHER, ALONE = "teacher", "student alone"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the detectors that the figures compare."""

    label: str
    checkpoint: Path
    """A run folder or a `.safetensors` file."""
    run: Run | None
    """None where only the weights are there, such as those of an imported teacher."""


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The detectors by label, in the order in which figures show them, and who is missing."""

    run: Run
    """The run that is explained: the first distilled one, or the first of all."""
    parts: Mapping[str, Part]
    no_teacher: str
    """Why there is no teacher, as a sentence; empty if there is one."""
    rivals: Mapping[str, Part]
    """Other detectors that could teach, by label."""


def assign(folders: Sequence[Path], alone: Path | None = None, rivals: Sequence[Path] = ()) -> Cast:
    """Reads runs and gives each its part.

    Args:
        folders: run folders, or folders that hold some.
        alone: a run without methods that stands for the student alone; if None, the one among the
            others that trained the same student on the same data, for as many steps if possible.
        rivals: run folders or `.safetensors` files of others that could teach; the teachers of
            the other runs are, too.

    Raises:
        UserError: there is no run, one has not finished, they were tested on other pictures,
            `alone` is not this student alone, or there is no such rival.
    """
    for rival in rivals:
        checkpoint.locate(rival)
    runs = find_runs(folders)
    distilled = [run for run in runs if run.methods]
    run = (distilled or runs)[0]
    taught = [other for other in distilled if other.setting == run.setting] or [run]
    plain = [_named_alone(alone, run)] if alone else _alone(run, runs)
    teacher, no_teacher = _teacher(run)
    parts = [
        *([teacher] if teacher else []),
        *(_part(ALONE, other) for other in plain if other.folder != run.folder),
        *(_part(label, other) for label, other in _labelled(taught).items()),
    ]
    _check(part.run for part in parts if part.run and part is not teacher)
    return Cast(
        run=run,
        parts={part.label: part for part in parts},
        no_teacher=no_teacher,
        rivals={part.label: part for part in _rivals(teacher, taught, rivals)},
    )


def _part(label: str, run: Run) -> Part:
    return Part(label=label, checkpoint=run.folder, run=run)


def _named_alone(folder: Path, run: Run) -> Run:
    """The run in a folder, if it trained the student of `run` alone, on the same data."""
    alone = read_run(folder)
    if alone.methods:
        raise UserError(
            f"{folder} is not a student alone: it learned by {'+'.join(alone.methods)}. Name a "
            "run without methods."
        )
    if alone.setting != run.setting:
        raise UserError(
            f"{folder} is {_setting(alone)}, but {run.folder} is {_setting(run)}: name a run of "
            "the same student on the same data."
        )
    return alone


def _setting(run: Run) -> str:
    data, images, student = run.setting
    return f"{student} on {images or 'all'} images of {data}"


def _alone(run: Run, runs: Iterable[Run]) -> list[Run]:
    """The student alone that `run` is best compared with, if there is one."""
    plain = [other for other in runs if not other.methods and other.setting == run.setting]

    def unlikeness(other: Run) -> tuple[int, int]:
        return abs(other.steps - run.steps), abs(other.seed - run.seed)

    return sorted(plain, key=unlikeness)[:1]


def _labelled(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their methods; where these are the same, their folders tell them apart."""
    labels = ["+".join(run.methods) or ALONE for run in runs]
    often = Counter(labels)
    folders = [run.folder.resolve() for run in runs]
    shared = os.path.commonpath(folders)
    return {
        label if often[label] == 1 else f"{label} ({folder.relative_to(shared)})": run
        for label, folder, run in zip(labels, folders, runs, strict=True)
    }


def _teacher(run: Run) -> tuple[Part | None, str]:
    """The detector that a run learned from, or why there is none."""
    named = run.experiment.get("teacher")
    if not named or not run.methods:
        return None, f"{run.folder} was trained without a teacher."
    cards = {
        place: card for place in teacher_places(run) if (card := checkpoint.card_beside(place))
    }
    known = [place for place, card in cards.items() if card.get("fingerprint") == run.taught_by]
    if known:
        place = known[0]
        return Part(
            label=TEACHER, checkpoint=place, run=read_run(place) if is_run(place) else None
        ), ""
    if cards:
        said = f"is not the teacher that {run.folder} learned from: it has changed."
        return None, f"{next(iter(cards))} {said}"
    return None, f"The teacher of {run.folder} is not at {named} any more."


def _rivals(teacher: Part | None, taught: Iterable[Run], named: Iterable[Path]) -> Iterator[Part]:
    """Teachers of runs, and detectors that are named so, without the teacher; each once."""
    known = [found.checkpoint for other in taught if (found := _teacher(other)[0])]
    places = dict.fromkeys(place.resolve() for place in (*known, *named))
    if teacher:
        places.pop(teacher.checkpoint.resolve(), None)
    for number, place in enumerate(places, start=2):
        run = read_run(place) if is_run(place) else None
        name = run.student if run else place.stem
        yield Part(label=f"{TEACHER} {number}: {name}", checkpoint=place, run=run)


def _check(runs: Iterable[Run]) -> None:
    runs = list(runs)
    for run in runs:
        if not run.finished:
            raise UserError(
                f"{run.folder} has not finished ({run.status['state']}, step "
                f"{run.status['step']} of {run.status['steps']}): resume it first."
            )
    tests = {run.test: run for run in runs}
    if len(tests) > 1:
        (one, first), (other, second) = list(tests.items())[:2]
        raise UserError(
            f"{first.folder} was tested on {_described(one)} and {second.folder} on "
            f"{_described(other)}: explain runs that were tested on the same pictures."
        )


def _described(test: tuple[str, str, int]) -> str:
    data, split, images = test
    return f"{images} {split} images of {data}"
