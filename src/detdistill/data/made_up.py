"""Pictures of noise with boxes at random, of any size and for any classes.

There is nothing to be learnt from them; they are there to try how shapes match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from detdistill.data.dataset import Sample

OBJECTS = 6
"""In every picture, each of half the size of the one before."""


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """A data set of noise."""

    classes: tuple[str, ...]
    size: tuple[int, int]
    """Height and width of every picture."""
    length: int

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The position in `classes`."""
        return tuple(range(len(self.classes)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        return ("the pictures are noise",)

    @property
    def left_out(self) -> int:
        """None: noise is never damaged."""
        return 0

    def __len__(self) -> int:
        """How many pictures there are."""
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        """The picture with this number."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        random = torch.Generator().manual_seed(index)
        extent = torch.tensor(self.size).flip(0) * 0.5 ** torch.arange(1, OBJECTS + 1).view(-1, 1)
        place = torch.tensor(self.size).flip(0) - extent
        corner = torch.rand(OBJECTS, 2, generator=random) * place
        return Sample(
            image=torch.randint(256, (3, *self.size), generator=random, dtype=torch.uint8),
            boxes=torch.cat([corner, corner + extent], dim=-1),
            labels=torch.randint(len(self.classes), (OBJECTS,), generator=random),
            crowd=torch.zeros(OBJECTS, dtype=torch.bool),
            id=index,
        )

    def ground_truth(self) -> dict[str, Any]:
        """Nothing is evaluated on noise."""
        raise NotImplementedError("nothing can be evaluated on noise")
