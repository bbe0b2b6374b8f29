"""What a teacher says of one picture, as it is kept on disk.

Numbers are kept in half precision; places in float32, and what half precision cannot hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.utils import _pytree as pytree

from detdistill.interop.checkpoint import save_tensors
from detdistill.structures import (
    DensePredictions,
    DetectorOutput,
    EncoderTrace,
    QueryPredictions,
    RegionPredictions,
)

Stored = list[Tensor]
"""The tensors of one picture."""

COORDINATES = 4
"""Numbers of a box that are places; more are a distribution's logits."""


class Own(NamedTuple):
    """A tensor that belongs to the pictures of a batch."""

    dtype: torch.dtype
    is_exact: bool
    """Whether half precision has too few digits for it."""


@dataclass(frozen=True)
class Form:
    """How an output is put together of what belongs to pictures and what is the same for all."""

    tree: pytree.TreeSpec
    leaves: tuple[Any, ...]
    """Of the whole output: an `Own` in the place of a tensor that belongs to pictures, and priors,
    strides and the like themselves."""

    @classmethod
    def of(cls, output: DetectorOutput) -> Form:
        """That of an output."""
        leaves, tree = pytree.tree_flatten(output)
        priors, places = ({id(t) for t in found} for found in (_priors(output), _places(output)))
        return cls(
            tree,
            tuple(
                Own(leaf.dtype, id(leaf) in places) if _is_own(leaf, priors) else leaf
                for leaf in leaves
            ),
        )

    def apart(self, output: DetectorOutput) -> list[Stored]:
        """The tensors of each picture, as they are stored."""
        pairs = zip(pytree.tree_leaves(output), self.leaves, strict=True)
        own = [
            [_stored(part, form) for part in leaf.detach().cpu()]
            for leaf, form in pairs
            if isinstance(form, Own)
        ]
        return [list(picture) for picture in zip(*own, strict=True)]

    def together(self, pictures: Sequence[Stored]) -> DetectorOutput:
        """The output that these pictures have in common."""
        own = iter([torch.stack(column) for column in zip(*pictures, strict=True)])
        leaves = [
            next(own).to(form.dtype) if isinstance(form, Own) else form for form in self.leaves
        ]
        output: DetectorOutput = pytree.tree_unflatten(leaves, self.tree)
        return output


def size(stored: Stored) -> int:
    """Bytes of a picture's answer."""
    return sum(tensor.nbytes for tensor in stored)


def read(file: Path) -> Stored | None:
    """The tensors in a file; None if it is not there, or was cut off."""
    try:
        found = load_file(file)
    except (OSError, SafetensorError):
        return None
    return [found[str(number)] for number in range(len(found))]


def write(file: Path, stored: Stored) -> None:
    """Quickly: a file that a power failure cuts off is written again."""
    numbered = {str(number): tensor.contiguous() for number, tensor in enumerate(stored)}
    save_tensors(file, numbered, sync=False)


def _priors(output: DetectorOutput) -> tuple[Tensor, ...]:
    match output.predictions:
        case DensePredictions() | RegionPredictions():
            return output.dense.priors
        case _:
            return ()


def _places(output: DetectorOutput) -> list[Tensor]:
    """Boxes and other places, of which half precision has too few digits in a large picture."""
    found: list[Tensor] = []
    match output.predictions:
        case QueryPredictions(boxes=boxes):
            found += boxes
        case RegionPredictions(rpn=rpn, proposals=proposals):
            found += (*rpn.boxes, proposals.boxes)
        case DensePredictions(boxes=boxes, coder=coder) if coder.numbers == COORDINATES:
            found += boxes
    if isinstance(output.trace, EncoderTrace):
        found += (output.trace.valid_ratios, output.trace.sizes)
    return found


def _is_own(leaf: object, priors: set[int]) -> bool:
    """Whether a leaf of an output belongs to its pictures."""
    return isinstance(leaf, Tensor) and id(leaf) not in priors


def _stored(tensor: Tensor, form: Own) -> Tensor:
    """As it is kept: half precision where that loses no more than digits."""
    if form.dtype != torch.float32 or form.is_exact:
        return tensor
    half = tensor.half()
    return half if half.isfinite().all() else tensor
