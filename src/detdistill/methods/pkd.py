"""PKD: the student's features should correlate with the teacher's, channel by channel.

Both are standardised per channel, so the scale of the teacher's features does not matter and
detectors of different kinds can teach each other.

Paper: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson
    Correlation Coefficient", NeurIPS 2022 (arXiv 2207.02039).
Reads: the necks; or the head towers of both at one cut.
Differs: all levels by default, as in CrossKD's use; the authors' own settings take levels 0 to 3
    with weight 6 (two-stage) or 10 (one-stage). A level of one element contributes 0 (released:
    NaN, `lone=False`). Maps of unequal size are resized if either side differs, not only the
    height. Statistics are those of a rank, as in the released code. Heads instead of necks are
    CrossKD's comparison (its table 2), for which no code was released.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor

from detdistill.levels import Levels
from detdistill.losses import resized, standardise
from detdistill.methods.method import Method, UnsuitablePairError
from detdistill.methods.parts.pair import same_level_count, same_widths, within_towers
from detdistill.structures import (
    DetectorOutput,
    Reads,
    Spec,
    Step,
)


class PKD(Method):
    """1 - Pearson correlation of each channel, summed over the levels."""

    pulls: ClassVar[str] = "neck"
    citation: ClassVar[str] = """@inproceedings{cao2022pkd,
  title = {{PKD}: General Distillation Framework for Object Detectors via Pearson Correlation
           Coefficient},
  author = {Cao, Weihan and Zhang, Yifan and Gao, Jianfei and Cheng, Anda and Cheng, Ke and
            Cheng, Jian},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022},
}"""

    weight: float = 6.0
    """Of every level. CrossKD's repository: 6 for GFL, 2 for RetinaNet and FCOS, 1 for ATSS."""
    levels: tuple[int, ...] | None = None
    """Which levels, the finest is 0; None for all."""
    resize: Literal["student", "teacher"] = "student"
    """Whose map is resized to the other's where they differ."""
    on: Literal["neck", "cls", "reg", "head"] = "neck"
    """What correlates: the neck, or what block `cut` of a branch of one-stage heads, or of both
    branches, puts out."""
    cut: int = 3
    """Block of the heads, where it is not the neck."""
    lone: bool = True
    """Count channels of one element as equal; in the released code they become NaN."""

    @property
    def reads(self) -> Reads:
        """The neck, or a cut of the towers where heads are compared."""
        if self.branches:
            return Reads(neck=False, towers=frozenset({self.cut}))
        return Reads()

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches of the heads that are compared."""
        return {"neck": (), "head": ("cls", "reg")}.get(self.on, (self.on,))

    def pulling(self) -> list[str]:
        """The neck, or the towers of the head."""
        return ["towers"] if self.branches else super().pulling()

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal widths."""
        same_level_count("pkd", teacher, student)
        if self.branches:
            within_towers("pkd", self.cut, teacher, student)
        same_widths("pkd", teacher, student, cut=self.cut if self.branches else 0)
        count = len(student.strides)
        for level in self._chosen(count):
            if not 0 <= level < count:
                raise UnsuitablePairError(
                    f"pkd was asked for level {level}, but the necks have levels 0 to {count - 1}."
                )

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ...; on heads `cls0`, `reg0`, ..."""
        student, teacher = self._maps(step.student), self._maps(step.teacher)
        return {
            f"{name}{i}": self.weight * self._distance(student[name][i], teacher[name][i])
            for name in student
            for i in self._chosen(len(step.student.neck))
        }

    def _maps(self, output: DetectorOutput) -> dict[str, Levels]:
        """What is compared, by the name of its terms."""
        if not self.branches:
            return {"level": output.neck}
        towers = {"cls": output.towers.cls, "reg": output.towers.reg}
        return {name: towers[name][self.cut] for name in self.branches}

    def _chosen(self, count: int) -> tuple[int, ...]:
        return tuple(range(count)) if self.levels is None else tuple(self.levels)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C, H', W') -> ()."""
        if self.resize == "student":
            student = resized(student, teacher)
        else:
            teacher = resized(teacher, student)
        standard = partial(standardise, lone=self.lone)
        return (standard(student) - standard(teacher)).square().mean() / 2
