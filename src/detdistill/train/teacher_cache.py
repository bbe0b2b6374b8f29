"""What a teacher said before: kept on disk, picture by picture, so that it is asked only once.

A picture is recognised by its pixels, as the teacher sees them: mirrored, resized and padded. So a
mirrored picture is another one, and a data set that has changed is asked for anew. A training gets
the numbers as they are kept the first time, too, and so does not depend on what was there before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from detdistill.errors import UserError
from detdistill.structures import Batch, DetectorOutput, Reads
from detdistill.train import cached_outputs
from detdistill.train.cached_outputs import Form, Stored

Teacher = Callable[[Batch], DetectorOutput]


class CacheCounts(NamedTuple):
    """How often a teacher was spared."""

    asked: int = 0
    """Pictures that it was asked for."""
    answered: int = 0
    """Pictures that were handed over."""
    complaint: str | None = None
    """Why answers are no longer kept, as on a full disk."""


class TeacherCache:
    """A teacher whose outputs are kept.

    Args:
        folder: where its answers are kept; several trainings may share it at the same time.
        teacher: asked for a batch's pictures that are not there yet, and once for every size.
        reads: what the answers hold.
        room: bytes that may be written.
    """

    def __init__(
        self, folder: Path, teacher: Teacher, reads: Reads, room: float = math.inf
    ) -> None:
        self._folder = folder / _name(reads)
        self._teacher = teacher
        self._forms: dict[torch.Size, Form] = {}
        self._room = room
        self.counts = CacheCounts()

    def __call__(self, batch: Batch) -> DetectorOutput:
        """The teacher's output for a batch that is not on a device yet; nor is the output."""
        files = [self._folder / key[:2] / f"{key}.safetensors" for key in _keys(batch)]
        known = {
            row: found for row, file in enumerate(files) if (found := cached_outputs.read(file))
        }
        missing = [row for row in range(len(files)) if row not in known]
        if missing:
            said = self._ask(batch, missing)
            known |= {row: self._kept(files[row], answer) for row, answer in said.items()}
        elif _canvas(batch) not in self._forms:
            self._ask(batch, [0])
        self._count(answered=len(files))
        return self._forms[_canvas(batch)].together([known[row] for row in range(len(files))])

    def size(self, batch: Batch) -> int:
        """Bytes of a picture's answer, from the first of a batch."""
        return cached_outputs.size(self._ask(batch, [0])[0])

    def _ask(self, batch: Batch, rows: list[int]) -> dict[int, Stored]:
        """Asks for some pictures of a batch, and learns the form of the answer."""
        output = self._teacher(_pick(batch, rows))
        self._count(asked=len(rows))
        form = self._forms.setdefault(_canvas(batch), Form.of(output))
        return dict(zip(rows, form.apart(output), strict=True))

    def _count(self, *, asked: int = 0, answered: int = 0) -> None:
        before = self.counts
        self.counts = before._replace(
            asked=before.asked + asked, answered=before.answered + answered
        )

    def _kept(self, file: Path, answer: Stored) -> Stored:
        """The answer, written down if that is possible; a training does not end for it."""
        if self.counts.complaint is None:
            self.counts = self.counts._replace(complaint=self._complaint(file, answer))
        return answer

    def _complaint(self, file: Path, answer: Stored) -> str | None:
        """Writes an answer; what hinders that."""
        self._room -= cached_outputs.size(answer)
        if self._room < 0:
            return "they would have taken more room than was agreed to"
        try:
            cached_outputs.write(file, answer)
        except UserError as error:
            return str(error)
        return None


def cache_summary(counts: Sequence[CacheCounts]) -> str:
    """What the teachers of all ranks were spared, in words."""
    asked, answered = (sum(column) for column in zip(*(t[:2] for t in counts), strict=True))
    complaint = next((one.complaint for one in counts if one.complaint), None)
    problem = f"; answers were not all kept: {complaint}" if complaint else ""
    return (
        f"the teacher was asked for {asked:,} of {answered:,} pictures, the others were "
        f"remembered{problem}"
    )


def _name(reads: Reads) -> str:
    """A folder's name for what is kept, the same for every method that reads as much."""
    flags = ("neck", "predictions", "preactivation", "encoder", "backbone")
    cuts = "".join(f"-tower{cut}" for cut in sorted(reads.towers))
    return "-".join(flag for flag in flags if getattr(reads, flag)) + cuts


def _keys(batch: Batch) -> list[str]:
    """What each picture is recognised by: its pixels with their padding, and its size without."""
    pairs = zip(batch.images.numpy(), batch.truth.sizes.tolist(), strict=True)
    return [
        blake2b(image.tobytes(), digest_size=16, person=_size_tag(image.shape, size)).hexdigest()
        for image, size in pairs
    ]


def _size_tag(shape: Sequence[int], size: Sequence[int]) -> bytes:
    return b"".join(int(side).to_bytes(4, "little") for side in (*shape[1:], *size))


def _canvas(batch: Batch) -> torch.Size:
    """Height and width with padding, which decide the shape of an answer."""
    return batch.images.shape[-2:]


def _pick(batch: Batch, rows: list[int]) -> Batch:
    picked: Batch = pytree.tree_map_only(Tensor, lambda tensor: tensor[rows], batch)
    return picked
