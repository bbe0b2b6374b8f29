"""What a data set is: numbered samples, and the truth that an evaluator compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from detdistill.structures import Batch, Truth, padded_up


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One picture and its objects. Tensors are shared between callers: never write into them."""

    image: Tensor
    """(3, H, W) uint8 RGB."""
    boxes: Tensor
    """(G, 4) float32 xyxy in pixels of `image`."""
    labels: Tensor
    """(G,) int64 class numbers."""
    crowd: Tensor
    """(G,) bool: a region to ignore, not an object to learn."""
    id: int
    """The picture's id in the data set's ground truth."""
    canvas: int = 0
    """Side of a square that a batch of the picture fills at least; the rest is padding."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


class Dataset(Protocol):
    """Numbered samples with named classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in here."""

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The id that `ground_truth` uses for each label."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the data, such as annotations that were left out."""

    @property
    def left_out(self) -> int:
        """Pictures that were left out because they cannot be read."""

    def __len__(self) -> int:
        """How many pictures there are."""

    def __getitem__(self, index: int, /) -> Sample:
        """The picture with this number, always the same one; IndexError beyond the last."""

    def ground_truth(self) -> dict[str, Any]:
        """The truth in COCO's format: images, annotations, categories.

        `images[i]` describes sample i, before any resizing: boxes found in a resized sample are to
        be scaled back by `images[i]["width"] / sample width`, likewise for the height.
        """


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of several samples.

    Images are padded at the right and the bottom to a common multiple of 32, and to the canvas of
    each, objects to the fullest image and to at least one, so that no tensor is empty.
    """
    return Batch(
        images=_images(samples),
        truth=_truth(samples),
        ids=torch.tensor([sample.id for sample in samples]),
    )


def _images(samples: Sequence[Sample]) -> Tensor:
    heights, widths = zip(*(sample.size for sample in samples), strict=True)
    canvas = max(sample.canvas for sample in samples)
    height, width = padded_up(max(canvas, *heights)), padded_up(max(canvas, *widths))
    if all(sample.size == (height, width) for sample in samples):
        return torch.stack([sample.image for sample in samples])
    images = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
    for image, sample in zip(images, samples, strict=True):
        image[:, : sample.size[0], : sample.size[1]] = sample.image
    return images


def _truth(samples: Sequence[Sample]) -> Truth:
    objects = max(1, *(len(sample.labels) for sample in samples))
    boxes = torch.zeros(len(samples), objects, 4)
    labels = torch.zeros(len(samples), objects, dtype=torch.int64)
    crowd = torch.zeros(len(samples), objects, dtype=torch.bool)
    real = torch.zeros(len(samples), objects, dtype=torch.bool)
    for row, sample in enumerate(samples):
        count = len(sample.labels)
        boxes[row, :count] = sample.boxes
        labels[row, :count] = sample.labels
        crowd[row, :count] = sample.crowd
        real[row, :count] = True
    sizes = torch.tensor([sample.size for sample in samples])
    return Truth(boxes=boxes, labels=labels, valid=real & ~crowd, crowd=crowd, sizes=sizes)
