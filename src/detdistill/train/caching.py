"""Whether a training's teacher can be remembered, where, and how much disk that takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detdistill.data import collate
from detdistill.errors import UserError
from detdistill.files import require_writable
from detdistill.train.assembly import Assembly
from detdistill.train.experiment import Experiment
from detdistill.train.memory import Memory

GIGABYTE = 1e9
USUAL_GB = 10.0
"""What a cache may grow to if nobody says otherwise."""


@dataclass(frozen=True)
class Plan:
    """A cache that a training may use."""

    folder: Path
    views: int
    """Pictures that the training can meet, mirrored ones counted apart."""
    picture_bytes: int
    """Of the first picture's answer."""

    @property
    def gigabytes(self) -> float:
        """What the cache grows to."""
        return self.views * self.picture_bytes / GIGABYTE

    def __str__(self) -> str:
        return (
            f"{self.views:,} views of {self.picture_bytes / 1e3:,.0f} kB, "
            f"{self.gigabytes:.2g} GB in all"
        )


def plan(experiment: Experiment, assembly: Assembly) -> Plan | None:
    """The cache of an experiment; None if it wants none, or asks no teacher.

    Asks the teacher once, for the size.

    Raises:
        UserError: it would take more than was agreed to, or cannot be written.
    """
    if experiment.teacher_cache is None or assembly.teacher is None:
        return None
    root = Path(experiment.teacher_cache)
    require_writable(root / "answers")
    found = Plan(
        folder=root / _teacher(experiment, assembly),
        views=_views(experiment, len(assembly.data)),
        picture_bytes=_picture_bytes(assembly, root),
    )
    agreed = experiment.teacher_cache_gb or USUAL_GB
    if found.gigabytes > agreed:
        raise UserError(
            f"The teacher cache in {root} would grow to {found}; agreed to are "
            f"{agreed:g} GB. Allow more with --teacher_cache_gb "
            f"{found.gigabytes:.2g}, or leave the cache away."
        )
    return found


def _teacher(experiment: Experiment, assembly: Assembly) -> str:
    """A name for all on which the teacher's answer to a picture depends."""
    scale = f"-x{experiment.teacher_scale:g}" if experiment.teacher_scale else ""
    return f"{assembly.teacher_fingerprint}-{experiment.precision}{scale}"


def _views(experiment: Experiment, pictures: int) -> int:
    """A picture that is changed at random is another one each time; later runs may meet it."""
    met = experiment.steps * experiment.batch_size
    if experiment.augment.is_random:
        return met
    return min(met, pictures * (2 if 0 < experiment.flip < 1 else 1))


def _picture_bytes(assembly: Assembly, root: Path) -> int:
    first = assembly.change(assembly.data[0], np.random.default_rng(0))
    return Memory(root, assembly.step.ask, assembly.step.reads).size(collate([first]))
