"""Images that may share a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

Image = TypeVar("Image")

PATIENCE = 4
"""Batches of images that may wait for others of their extent."""


def alike(
    images: Iterable[Image], size: int, extent: Callable[[Image], Hashable]
) -> Iterator[list[Image]]:
    """Batches of images that are padded to one height and width, each as soon as it is full.

    So an image is padded no further than it is alone, and what is found in it does not depend on
    the others: what lies beyond would reach into it, through convolutions and norms.

    Args:
        images: in the order in which they are read.
        size: of a batch, at most.
        extent: what an image is padded to.
    """
    waiting: dict[Hashable, list[Image]] = defaultdict(list)
    for image in images:
        same = waiting[extent(image)]
        same.append(image)
        if len(same) == size:
            yield waiting.pop(extent(image))
        elif sum(map(len, waiting.values())) >= PATIENCE * size:
            yield waiting.pop(max(waiting, key=lambda key: len(waiting[key])))
    yield from waiting.values()
