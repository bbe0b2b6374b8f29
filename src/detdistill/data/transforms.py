"""Changes of a picture that move its boxes along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detdistill.data.dataset import Dataset, Sample


def flip(sample: Sample) -> Sample:
    """The sample mirrored left to right: x becomes W - x."""
    width = sample.image.shape[-1]
    left, top, right, bottom = sample.boxes.unbind(-1)
    boxes = torch.stack([width - right, top, width - left, bottom], dim=-1)
    return replace(sample, image=sample.image.flip(-1), boxes=boxes)


@dataclass(frozen=True, slots=True)
class Resize:
    """Scales a picture, proportions kept, as large as both limits allow."""

    shorter: int = 800
    """Largest length of the shorter side."""
    longer: int = 1333
    """Largest length of the longer side."""
    canvas: int = 0
    """Side of the square that a batch fills at least."""

    @classmethod
    def letterbox(cls, side: int) -> Resize:
        """As large as fits into a square, to which batches are padded: all have one shape."""
        return cls(side, side, canvas=side)

    @classmethod
    def of(cls, sides: Sequence[int] | None, letterbox: int | None) -> Resize | None:
        """As an experiment or a card says it: a square, or two lengths; None keeps the size."""
        if letterbox:
            return cls.letterbox(letterbox)
        return cls(*sides) if sides else None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The new height and width, rounded to whole pixels."""
        scale = min(self.shorter / min(height, width), self.longer / max(height, width))
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def __call__(self, sample: Sample) -> Sample:
        """The sample at its new size."""
        image = self.picture(sample.image)
        boxes = sample.boxes * scale(sample.image, image)
        return replace(sample, image=image, boxes=boxes, canvas=self.canvas)

    def picture(self, image: Tensor) -> Tensor:
        """(3, H, W) -> (3, H', W'); the same tensor where the size does not change."""
        from torchvision.transforms.v2 import functional

        height, width = image.shape[-2:]
        size = self.size(height, width)
        if size == (height, width):
            return image
        resized: Tensor = functional.resize(image, list(size), antialias=True)
        return resized


def scale(image: Tensor, other: Tensor) -> Tensor:
    """(4,) by which a box in `image` is multiplied to become the same box in `other`."""
    (height, width), (new_height, new_width) = image.shape[-2:], other.shape[-2:]
    return torch.tensor([new_width / width, new_height / height]).repeat(2)


class Resized:
    """A data set with its pictures resized; its ground truth stays that of the originals."""

    def __init__(self, dataset: Dataset, resize: Resize) -> None:
        self._dataset = dataset
        self._resize = resize

    @property
    def classes(self) -> tuple[str, ...]:
        """The data set's."""
        return self._dataset.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data set's."""
        return self._dataset.category_ids

    @property
    def notes(self) -> tuple[str, ...]:
        """The data set's."""
        return self._dataset.notes

    @property
    def left_out(self) -> int:
        """The data set's."""
        return self._dataset.left_out

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._resize(self._dataset[index])

    def ground_truth(self) -> dict[str, Any]:
        """The data set's."""
        return self._dataset.ground_truth()
