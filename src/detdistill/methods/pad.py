"""PAD: cells that the student can learn count more than those that are too much for it.

Wraps the losses that another method has for each cell: a layer on the student's neck predicts how
large they will be, and they are divided by that.

Paper: Zhang et al., "Prime-Aware Adaptive Distillation", ECCV 2020 (arXiv 2008.01458).
Reads: what the wrapped method reads.
Differs: our reading, without comparison with released numbers. A sample is a cell, and its variance
    comes from one convolution of size 1 per level, which starts at variance 1. The variance has a
    floor, without which a cell that agrees would count more and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from detdistill import losses
from detdistill.errors import UserError
from detdistill.methods import find
from detdistill.methods.method import CellByCell, Method
from detdistill.methods.parts.pair import same_strides
from detdistill.structures import Reads, Spec, Step


class PAD(Method):
    """Loss of each cell over its predicted variance, plus the logarithm of the variance."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    reading: ClassVar[str] = (
        "Written from the paper's idea; that a sample is a cell, and how its variance is predicted "
        "and bounded, is chosen here."
    )
    citation: ClassVar[str] = """@inproceedings{zhang2020pad,
  title = {Prime-Aware Adaptive Distillation},
  author = {Zhang, Youcai and Lan, Zhonghao and Dai, Yuchen and Zeng, Fangao and Bai, Yan and
            Chang, Jie and Wei, Yichen},
  booktitle = {European Conference on Computer Vision},
  year = {2020},
}"""

    weight: float = 3.0
    """Of the mean over the levels; that of the neck in `fitnet`."""
    of: str = "fitnet"
    """The method whose cells are weighed: `fitnet`, or `kd` for its class scores."""
    floor: float = 0.01
    """Least variance."""

    def __post_init__(self) -> None:
        """Makes the wrapped method, with its own defaults."""
        inner = find(self.of)()
        if not isinstance(inner, CellByCell):
            raise UserError(
                f"pad weighs what each cell loses, which {self.of} does not say: set of=fitnet or "
                "of=kd."
            )
        self.inner = inner

    @property
    def reads(self) -> Reads:
        """What the wrapped method reads."""
        return self.inner.reads

    def pulling(self) -> list[str]:
        """What the wrapped method pulls."""
        return self.inner.pulling()

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides, and what the wrapped method needs."""
        same_strides("pad", teacher, student)
        self.inner.setup(teacher, student)
        self.predictors = nn.ModuleList(nn.Conv2d(student.channels, 1, 1) for _ in student.strides)
        for parameter in self.predictors.parameters():
            nn.init.zeros_(parameter)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        share = self.weight / len(self.predictors)
        pairs = zip(self.inner.cell_losses(step), self.variances(step), strict=True)
        return {
            f"level{i}": share * (lost / variance + variance.log()).mean()
            for i, (lost, variance) in enumerate(pairs)
        }

    def variances(self, step: Step) -> list[Tensor]:
        """(B, H, W) per level, 1 before anything is learnt."""
        levels = zip(self.predictors, step.student.neck, strict=True)
        raw = (losses.precise(layer(neck)).squeeze(1) for layer, neck in levels)
        return [self.floor + (1 - self.floor) * number.exp() for number in raw]
