"""Whether a training's teacher can be cached, where, and how much disk that takes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from detdistill import data, detectors
from detdistill.errors import UserError
from detdistill.files import require_writable
from detdistill.structures import Batch
from detdistill.train.assembly import Assembly, Original
from detdistill.train.experiment import Experiment
from detdistill.train.teacher_cache import TeacherCache

GIGABYTE = 1e9
USUAL_GB = 10.0
"""What a training may write if nobody says otherwise."""
SEVERAL = 8
"""Pictures that show whether all are of one size."""


@dataclass(frozen=True)
class CachePlan:
    """A cache that a training may use."""

    folder: Path
    views: int
    """Pictures that the training can meet, mirrored ones counted apart."""
    picture_bytes: int
    """Of one picture's answer."""
    room: float
    """Bytes that a training may write."""

    @property
    def gigabytes(self) -> float:
        """What the training may write."""
        return self.views * self.picture_bytes / GIGABYTE

    def __str__(self) -> str:
        return (
            f"{self.views:,} views of {self.picture_bytes / 1e3:,.0f} kB, "
            f"{self.gigabytes:.2g} GB in all"
        )


def plan(experiment: Experiment, assembly: Assembly) -> CachePlan | None:
    """The cache of an experiment; None if it wants none, or asks no teacher.

    Asks the teacher once, for the size.

    Raises:
        UserError: it would take more than was agreed to, or cannot be written.
    """
    if experiment.teacher_cache is None or assembly.teacher is None:
        return None
    root = Path(experiment.teacher_cache)
    require_writable(root / "answers")
    agreed = experiment.teacher_cache_gb or USUAL_GB
    batch = _first_batch(experiment, assembly)
    found = CachePlan(
        folder=root / _teacher(experiment, assembly.teacher),
        views=_views(experiment, batch, len(assembly.data)),
        picture_bytes=TeacherCache(root, assembly.step.ask, assembly.step.reads).size(batch),
        room=agreed * GIGABYTE,
    )
    if found.gigabytes > agreed:
        raise UserError(
            f"The teacher cache in {root} could grow by {found}; agreed to are {agreed:g} GB. "
            f"Allow more with --teacher_cache_gb {_rounded_up(found.gigabytes):g}, or leave the "
            "cache away."
        )
    return found


def _first_batch(experiment: Experiment, assembly: Assembly) -> Batch:
    return next(
        data.stream(
            assembly.data,
            seed=experiment.seed,
            batch_size=min(experiment.batch_size, SEVERAL),
            steps=1,
            flip=0,
            change=assembly.change,
            on_damage=lambda _: None,
        )
    )


def _teacher(experiment: Experiment, teacher: Original) -> str:
    """A name for all on which the answer to a picture depends, but for rounding."""
    card = json.dumps(detectors.to_card(teacher.architecture), sort_keys=True)
    scale = f"-x{experiment.teacher_scale:g}" if experiment.teacher_scale else ""
    build = sha256(card.encode()).hexdigest()[:8]
    return f"{teacher.fingerprint}-{build}-{experiment.precision}{scale}"


def _views(experiment: Experiment, batch: Batch, pictures: int) -> int:
    """A picture is another one each time if it changes at random, or is padded to its neighbours.

    Only later runs with the same seed meet it again then.
    """
    met = experiment.steps * experiment.batch_size
    of_one_size = bool((batch.truth.sizes == batch.truth.sizes[0]).all())
    if experiment.augment.is_random or not of_one_size:
        return met
    return min(met, pictures * (2 if 0 < experiment.flip < 1 else 1))


def _rounded_up(gigabytes: float) -> float:
    """To two digits."""
    unit = 10.0 ** (math.floor(math.log10(gigabytes)) - 1)
    return math.ceil(gigabytes / unit) * unit
