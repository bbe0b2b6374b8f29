"""SKD: the student's neck should look like the teacher's around each cell, as pictures do.

What is compared is the mean, the contrast and the structure of each neighbourhood of a channel.

Paper: de Rijk et al., "Structural Knowledge Distillation for Object Detection", NeurIPS 2022
    (arXiv 2211.13133).
Reads: the necks.
Differs: our reading; no code was released, and window, constants, range and weight are ours. The
    similarity (SSIM) is that of pictures: a Gaussian window of 11 cells, which at the border covers
    the map alone, and the published constants, relative to the range of the teacher's values in a
    level of an image. A level's loss is half of 1 - SSIM, from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from detdistill import losses
from detdistill.errors import UserError
from detdistill.methods.method import Method
from detdistill.methods.parts.necks import adapted, by_level
from detdistill.methods.parts.pair import Adapter, adapters, same_strides
from detdistill.similarity import structural_similarity
from detdistill.structures import Spec, Step


class SKD(Method):
    """Structural dissimilarity of the necks, summed over the levels."""

    pulls: ClassVar[str] = "neck"
    reading: ClassVar[str] = (
        "No code was released; window, constants, range of values and weight are chosen here."
    )
    citation: ClassVar[str] = """@inproceedings{derijk2022skd,
  title = {Structural Knowledge Distillation for Object Detection},
  author = {de Rijk, Philip and Schneider, Lukas and Cordts, Marius and Gavrila, Dariu M.},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022},
}"""

    weight: float = 4.0
    """Of every level."""
    window: int = 11
    """Cells per side of a neighbourhood, an odd number."""
    deviation: float = 1.5
    """Of the Gaussian by which the cells of a neighbourhood count, in cells."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides and an odd window."""
        if self.window % 2 == 0:
            raise UserError(f"skd has a window of {self.window} cells, but it must be odd.")
        same_strides("skd", teacher, student)
        self.adapters = adapters("skd", self.adapter, teacher, student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        pairs = adapted(self.adapters, step)
        return by_level(self.weight * self._unlike(*pair) for pair in pairs)

    def _unlike(self, student: Tensor, teacher: Tensor) -> Tensor:
        """How unlike two levels (B, C, H, W) look on average, from 0 to 1."""
        wanted, maps = losses.precise(teacher), (1, 2, 3)
        extent = wanted.amax(maps, keepdim=True) - wanted.amin(maps, keepdim=True)
        alike = structural_similarity(
            student,
            teacher,
            extent.clamp(min=1e-3),
            window=self.window,
            deviation=self.deviation,
        )
        return (1 - alike.mean()) / 2
