"""MGD: the student should be able to make up the teacher's neck from random parts of its own.

Cells are blanked by chance, and a small trained generator fills in what the teacher has there.

Paper: Yang et al., "Masked Generative Distillation", ECCV 2022 (arXiv 2205.01529).
Reads: the necks.
Differs: chance is a function of the step, the level and the place, so that a step can be repeated
    and resumed; all ranks blank the same places. Otherwise as released: the coarsest level of
    two-stage detectors is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from detdistill import losses, masks
from detdistill.methods.method import Method
from detdistill.methods.parts.necks import adapted, by_level, convolved_levels
from detdistill.methods.parts.pair import Adapter, adapters, or_published, same_strides
from detdistill.structures import Spec, Step


class MGD(Method):
    """Squared difference between what is generated from the student's neck and the teacher's."""

    pulls: ClassVar[str] = "neck"
    agrees: ClassVar[bool] = False
    citation: ClassVar[str] = """@inproceedings{yang2022mgd,
  title = {Masked Generative Distillation},
  author = {Yang, Zhendong and Li, Zhe and Shao, Mingqi and Shi, Dachuan and Yuan, Zehuan and
            Yuan, Chun},
  booktitle = {European Conference on Computer Vision},
  year = {2022},
}"""

    weight: float | None = None
    """Of the sum over channels and cells, per image. None for the released one: 2e-5, for two-stage
    detectors 5e-7."""
    blank: float | None = None
    """Share of the cells that is blanked. None for the released one: 0.65, for two-stage detectors
    0.45."""
    seed: int = 0
    """Chooses other cells."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the blanking."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides."""
        same_strides("mgd", teacher, student)
        published = (5e-7, 0.45) if student.family == "region" else (2e-5, 0.65)
        self.scale, self.blanked = or_published((self.weight, self.blank), published)
        count = convolved_levels(student)
        self.adapters = adapters("mgd", self.adapter, teacher, student)[:count]
        self.generators = nn.ModuleList(_generator(teacher.channels) for _ in range(count))

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        made = zip(adapted(self.adapters, step), self.generators, strict=True)
        return by_level(
            self.scale
            * losses.squared_error(generate(student * self.kept(i, step)), teacher).sum()
            / len(teacher)
            for i, ((student, teacher), generate) in enumerate(made)
        )

    def kept(self, i: int, step: Step) -> Tensor:
        """(B, 1, H, W) 1 where a cell is seen, 0 where it is blanked."""
        images, _, height, width = step.student.neck[i].shape
        return (self.chance(i, step, (images, 1, height, width)) <= 1 - self.blanked).float()

    def chance(self, i: int, step: Step, shape: tuple[int, ...]) -> Tensor:
        """Numbers from 0 to 1."""
        return masks.uniform(shape, step.student.neck[i].device, self.seed, step.index, i)


def _generator(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
    )
