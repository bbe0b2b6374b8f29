"""At what sizes training is timed, and on what: detectors with fresh weights, made-up images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from detdistill.detectors import Detector, describe, from_architecture
from detdistill.structures import Batch, Truth
from detdistill.train.experiment import Experiment, Optimizer


@dataclass(frozen=True, kw_only=True)
class Size:
    """A student, a teacher, and the batches that they see."""

    name: str
    student: str
    """Its name without the family."""
    teacher: str
    image: tuple[int, int]
    """Height and width."""
    images: int = 2
    """In a batch."""
    classes: int = 80
    objects: int = 7
    """In an image."""
    frozen: bool = True
    """Whether the stem, the first stage and the statistics of the backbones are, as in the papers;
    they have no say in a training from random weights."""
    families: tuple[str, ...] = ("gfl", "retinanet")
    rounds: int = 4

    def detector(self, family: str, backbone: str) -> Detector:
        """A detector with fresh weights."""
        names = tuple(f"class {number}" for number in range(self.classes))
        found = describe(f"{family}-{backbone}", names)
        if self.frozen:
            usual = replace(found.backbone, frozen_stages=1, frozen_norm=True)
            found = replace(found, backbone=usual)  # type: ignore[type-var]  # a dataclass
        torch.manual_seed(0)
        return from_architecture(found)

    def experiment(self, **settings: object) -> Experiment:
        """SGD, with steps so small that what is timed stays the same."""
        optimizer = Optimizer(name="sgd", lr=1e-9, warmup_steps=0, schedule="constant", clip=None)
        plain = Experiment(steps=10**6, batch_size=self.images, optimizer=optimizer)
        return replace(plain, **settings)  # type: ignore[arg-type]  # fields of it

    def batch(self) -> Batch:
        """Noise, with boxes of all sizes."""
        random = torch.Generator().manual_seed(0)
        height, width = self.image
        shape = (self.images, self.objects)
        extent = torch.tensor([width, height])
        low = torch.rand(*shape, 2, generator=random) * 0.9 * extent
        sides = 8 + torch.rand(*shape, 2, generator=random).square() * 0.6 * extent
        padded = (self.images, 3, *(-(-side // 32) * 32 for side in self.image))
        return Batch(
            images=torch.randint(256, padded, dtype=torch.uint8, generator=random),
            truth=Truth(
                boxes=torch.cat([low, torch.minimum(low + sides, extent)], dim=-1),
                labels=torch.randint(self.classes, shape, generator=random),
                valid=torch.ones(shape, dtype=torch.bool),
                crowd=torch.zeros(shape, dtype=torch.bool),
                sizes=torch.tensor([self.image] * self.images),
            ),
            ids=torch.arange(self.images),
        )


SIZES = {
    size.name: size
    for size in (
        Size(
            name="demo",
            student="quick-w8",
            teacher="quick-w32",
            image=(128, 128),
            images=8,
            classes=10,
            frozen=False,
            rounds=10,
        ),
        Size(name="320", student="r18", teacher="r50", image=(320, 320), rounds=12),
        Size(name="320-r101", student="r50", teacher="r101", image=(320, 320), families=("gfl",)),
        Size(
            name="coco",
            student="r18",
            teacher="r50",
            image=(800, 1333),
            families=("gfl",),
            rounds=2,
        ),
    )
}
REFERENCE = "320"
"""The size at which the official implementation was measured."""
