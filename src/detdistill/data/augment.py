"""Random changes of training pictures: other sizes, cuts, other colours.

Every picture is changed by random numbers of its own, so no change depends on another picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from detdistill import boxes as geometry
from detdistill.augmentation import Augmentation
from detdistill.data.dataset import Sample
from detdistill.data.transforms import Resize

Change = Callable[[Sample, np.random.Generator], Sample]
"""What is done to a training picture before it is perhaps mirrored."""

LEAST_SIDE = 1.0
"""Pixels of a side below which nothing is left of an object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmenter:
    """Gives a training picture its size and its colours: a `Change`."""

    resize: Resize | None = None
    """As in evaluation; None keeps the size."""
    settings: Augmentation = field(default_factory=Augmentation)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample, changed."""
        sample = self._sized(sample, rng)
        if self.settings.photometric:
            return replace(sample, image=distorted(sample.image, rng))
        return sample

    def _sized(self, sample: Sample, rng: np.random.Generator) -> Sample:
        settings, resize = self.settings, self.resize
        if settings.jitter:
            side = settings.crop or (resize.canvas if resize else 0)
            scaled = jittered(sample, side, settings.jitter, rng)
            return randomly_cut(scaled, side, settings.visible, rng)
        if settings.short_sides and resize:
            shorter = _one_of(settings.short_sides, settings.sampling, rng)
            return replace(resize, shorter=shorter)(sample)
        return resize(sample) if resize else sample


def jittered(
    sample: Sample, side: int, factors: tuple[float, float], rng: np.random.Generator
) -> Sample:
    """The sample scaled to fit into a square of `side` times a random factor.

    Source: Ghiasi et al., "Simple Copy-Paste", CVPR 2021, sec. 3: factors from 0.1 to 2.
    """
    limit = max(1, round(side * rng.uniform(*factors)))
    return Resize(limit, limit)(sample)


def randomly_cut(sample: Sample, side: int, visible: float, rng: np.random.Generator) -> Sample:
    """`cut` anywhere, in the directions in which the sample is larger than the square."""
    room = np.maximum(0, np.array(sample.size) - side)
    top, left = rng.integers(room + 1).tolist()
    return cut(sample, (top, left), side, visible)


def cut(sample: Sample, corner: tuple[int, int], side: int, visible: float) -> Sample:
    """A square of a sample, and the objects that are left in it.

    Boxes are clipped. Of an object at least the share `visible` and a pixel must be left; of a
    crowd region a pixel is enough, since nothing is learnt there.

    Args:
        sample: what is cut.
        corner: top and left of the square.
        side: of the square, which may reach beyond the right and the bottom.
        visible: share of a box's area.
    """
    top, left = corner
    image = sample.image[:, top : top + side, left : left + side]
    moved = sample.boxes - torch.tensor([left, top, left, top])
    boxes = geometry.clipped(moved[None], torch.tensor([image.shape[-2:]]))[0]
    enough = geometry.area(boxes) >= visible * geometry.area(sample.boxes)
    seen = (geometry.sides(boxes) >= LEAST_SIDE).all(dim=1)
    keep = seen & (enough | sample.crowd)
    return replace(
        sample,
        image=image,
        boxes=boxes[keep],
        labels=sample.labels[keep],
        crowd=sample.crowd[keep],
        canvas=side,
    )


def distorted(image: Tensor, rng: np.random.Generator) -> Tensor:
    """(3, H, W) in other colours, by torchvision, whose random state is lent and put back.

    Source: Liu et al., "SSD", ECCV 2016, sec. 2.2.
    """
    from torchvision.transforms.v2 import RandomPhotometricDistort

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        changed: Tensor = RandomPhotometricDistort()(image)
    return changed


def _one_of(sides: tuple[int, ...], sampling: str, rng: np.random.Generator) -> int:
    if sampling == "range":
        return int(rng.integers(min(sides), max(sides) + 1))
    return sides[rng.integers(len(sides))]
