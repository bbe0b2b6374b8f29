"""What a teacher said before: kept on disk, picture by picture, so that it is asked only once.

A picture is recognised by its pixels, as the teacher sees them: mirrored, resized and padded. So a
mirrored picture is another one, and a data set that has changed is asked for anew. Numbers are kept
in half precision, boxes in pixels and what does not fit in float32; a training gets these numbers
the first time, too, and so does not depend on what was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils import _pytree as pytree

from detdistill.errors import UserError
from detdistill.files import replace_file
from detdistill.structures import (
    Batch,
    DensePredictions,
    DetectorOutput,
    Reads,
    RegionPredictions,
)

Teacher = Callable[[Batch], DetectorOutput]
Stored = list[Tensor]
"""The tensors of one picture."""

COORDINATES = 4


@dataclass(frozen=True)
class Form:
    """How an output is put together of what belongs to pictures and what is the same for all."""

    tree: pytree.TreeSpec
    leaves: tuple[Any, ...]
    """Of the whole output: a dtype in the place of a tensor that belongs to pictures, and priors,
    strides and the like themselves."""

    @classmethod
    def of(cls, output: DetectorOutput) -> Form:
        """That of an output."""
        leaves, tree = pytree.tree_flatten(output)
        priors = {id(prior) for prior in _priors(output)}
        return cls(tree, tuple(leaf.dtype if _is_own(leaf, priors) else leaf for leaf in leaves))

    def apart(self, output: DetectorOutput) -> list[Stored]:
        """The tensors of each picture, as they are stored."""
        pairs = zip(pytree.tree_leaves(output), self.leaves, strict=True)
        own = [_stored(leaf) for leaf, form in pairs if isinstance(form, torch.dtype)]
        return [list(picture) for picture in zip(*own, strict=True)]

    def together(self, pictures: Sequence[Stored]) -> DetectorOutput:
        """The output that these pictures have in common."""
        own = iter([torch.stack(column) for column in zip(*pictures, strict=True)])
        leaves = [
            next(own).to(form) if isinstance(form, torch.dtype) else form for form in self.leaves
        ]
        output: DetectorOutput = pytree.tree_unflatten(leaves, self.tree)
        return output


class Memory:
    """A teacher that remembers.

    Args:
        folder: where its answers are kept; several trainings may share it at the same time.
        teacher: asked for a batch's pictures that are not there yet, and once for every size.
        reads: what the answers hold.
    """

    def __init__(self, folder: Path, teacher: Teacher, reads: Reads) -> None:
        self._folder = folder / _name(reads)
        self._teacher = teacher
        self._forms: dict[torch.Size, Form] = {}
        self.asked = 0
        """Pictures that the teacher was asked for."""
        self.answered = 0
        """Pictures that were handed over."""
        self.complaint: str | None = None
        """Why answers are no longer kept, as on a full disk."""

    def __call__(self, batch: Batch) -> DetectorOutput:
        """The teacher's output for a batch that is not on a device yet; nor is the output."""
        files = [self._folder / key[:2] / f"{key}.safetensors" for key in _keys(batch)]
        known = {row: found for row, file in enumerate(files) if (found := _read(file))}
        missing = [row for row in range(len(files)) if row not in known]
        if missing:
            answers = self._ask(batch, missing)
            known |= {row: self._kept(files[row], answer) for row, answer in answers.items()}
        elif _canvas(batch) not in self._forms:
            self._ask(batch, [0])
        self.answered += len(files)
        return self._forms[_canvas(batch)].together([known[row] for row in range(len(files))])

    def size(self, batch: Batch) -> int:
        """Bytes of a picture's answer, from the first of a batch."""
        return sum(tensor.nbytes for tensor in self._ask(batch, [0])[0])

    def summary(self) -> str:
        """How often the teacher was spared."""
        spared = f"asked for {self.asked:,} of {self.answered:,} pictures"
        problem = f"; answers were not all kept: {self.complaint}" if self.complaint else ""
        return f"the teacher was {spared}, the others were remembered{problem}"

    def _ask(self, batch: Batch, rows: list[int]) -> dict[int, Stored]:
        """Asks for some pictures of a batch, and learns the form of the answer."""
        output = self._teacher(_pick(batch, rows))
        self.asked += len(rows)
        form = self._forms.setdefault(_canvas(batch), Form.of(output))
        return dict(zip(rows, form.apart(output), strict=True))

    def _kept(self, file: Path, answer: Stored) -> Stored:
        """The answer, written down if that is possible; a training does not end for it."""
        if self.complaint is None:
            try:
                _write(file, answer)
            except UserError as error:
                self.complaint = str(error)
        return answer


def _name(reads: Reads) -> str:
    """A folder's name for what is read, the same for every method that reads as much."""
    values = ((entry.name, getattr(reads, entry.name)) for entry in fields(reads))
    read = (
        name + "".join(map(str, sorted(value))) if isinstance(value, frozenset) else name
        for name, value in values
        if value and name != "targets"
    )
    return "-".join(("neck", *read))


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


def _priors(output: DetectorOutput) -> tuple[Tensor, ...]:
    match output.predictions:
        case DensePredictions() | RegionPredictions():
            return output.dense.priors
        case _:
            return ()


def _is_own(leaf: object, priors: set[int]) -> bool:
    """Whether a leaf of an output belongs to its pictures."""
    return isinstance(leaf, Tensor) and id(leaf) not in priors


def _stored(leaf: Tensor) -> Tensor:
    """As it is kept: half precision where that loses no more than digits."""
    leaf = leaf.detach().cpu()
    if leaf.dtype != torch.float32 or _are_boxes(leaf):
        return leaf
    half = leaf.half()
    return half if half.isfinite().all() else leaf


def _are_boxes(leaf: Tensor) -> bool:
    """Whether these are boxes in pixels (B, n, 4), of which half precision has too few digits."""
    return leaf.ndim == 3 and leaf.shape[-1] == COORDINATES  # noqa: PLR2004


def _read(file: Path) -> Stored | None:
    """The tensors in a file; None if it is not there, or was cut off."""
    try:
        found = load_file(file)
    except (OSError, SafetensorError):
        return None
    return [found[str(number)] for number in range(len(found))]


def _write(file: Path, stored: Stored) -> None:
    """Quickly: a file that a power failure cuts off is written again."""
    numbered = {str(number): tensor.contiguous() for number, tensor in enumerate(stored)}
    replace_file(file, lambda path: save_file(numbered, path), sync=False)
