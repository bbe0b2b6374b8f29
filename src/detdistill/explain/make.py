"""Makes figures for runs and writes them, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detdistill import explain, run_files
from detdistill.errors import UserError
from detdistill.explain import folder as folders
from detdistill.explain import roles
from detdistill.explain.figure import FigureUnavailableError
from detdistill.explain.subject import Subject
from detdistill.files import require_writable
from detdistill.report.index import INDEX, Entry, index


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of a request."""

    folder: Path
    figures: list[Entry]
    """What was made now."""
    missing: dict[str, str]
    """Why figures are not there, by name."""


def make(
    runs: Sequence[Path],
    *,
    only: Sequence[str] = (),
    images: int = 4,
    split: str = "test",
    alone: Path | None = None,
    rivals: Sequence[Path] = (),
    out: Path | None = None,
) -> Made:
    """Makes the figures of runs that are compared with each other.

    Args:
        runs: run folders, or folders that hold some.
        only: names of figures; none for all.
        images: how many pictures are shown.
        split: the part of the data they are from.
        alone: the run of the student alone, if it is not among `runs`.
        rivals: other detectors that could teach, to be compared with the teacher.
        out: folder for the figures; that of the explained run if None.

    Raises:
        UserError: a figure or a run does not exist, or the runs cannot be explained together.
    """
    if images < 1:
        raise UserError(f"images is {images}, but must be at least 1.")
    makers = {name: explain.find(name) for name in only or explain.names()}
    subject = Subject(roles.assign(runs, alone, rivals), split=split, images=images)
    folder = out or subject.run.folder / run_files.FIGURES
    require_writable(folder / INDEX)
    index(folder)  # a broken one is refused before any work
    made: dict[str, list[Entry]] = {}
    missing: dict[str, str] = {}
    for name, figures in makers.items():
        made[name] = []
        try:
            for figure in figures(subject):
                made[name].append(folders.write(figure, folder, asked=name))
        except FigureUnavailableError as reason:
            missing[name] = str(reason)
        folders.update_index(folder, name, made[name])
    entries = [entry for of_name in made.values() for entry in of_name]
    return Made(folder=folder, figures=entries, missing=missing)
