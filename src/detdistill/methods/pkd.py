"""PKD: the student's neck should correlate with the teacher's, channel by channel.

Both are standardised per channel, so the scale of the teacher's features does not matter and
detectors of different kinds can teach each other.

Paper: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson
    Correlation Coefficient", NeurIPS 2022 (arXiv 2207.02039).
Reads: the necks.
Differs: all levels by default, as in CrossKD's use; the authors' own settings take levels 0 to 3
    with weight 6 (two-stage) or 10 (one-stage). A level of one element contributes 0 instead of
    NaN. Maps of unequal size are resized if either side differs, not only the height. Statistics
    are those of a rank, as in the released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from detdistill.losses import precise, standardise
from detdistill.methods.method import Method, UnsuitablePairError
from detdistill.methods.pair import same_level_count
from detdistill.structures import Spec, Step


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

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal widths."""
        same_level_count("pkd", teacher, student)
        if teacher.channels != student.channels:
            raise UnsuitablePairError(
                f"pkd correlates channel with channel, but the teacher's neck has "
                f"{teacher.channels} channels and the student's {student.channels}: choose necks "
                "of one width, or fitnet, which has adapters."
            )
        count = len(student.strides)
        for level in self._chosen(count):
            if not 0 <= level < count:
                raise UnsuitablePairError(
                    f"pkd was asked for level {level}, but the necks have levels 0 to {count - 1}."
                )

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        return {
            f"level{i}": self.weight * self._distance(step.student.neck[i], step.teacher.neck[i])
            for i in self._chosen(len(step.student.neck))
        }

    def _chosen(self, count: int) -> tuple[int, ...]:
        return tuple(range(count)) if self.levels is None else tuple(self.levels)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C, H', W') -> ()."""
        if student.shape != teacher.shape and self.resize == "student":
            student = _resized(student, teacher)
        elif student.shape != teacher.shape:
            teacher = _resized(teacher, student)
        return (standardise(student) - standardise(teacher)).square().mean() / 2


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(precise(maps), like.shape[-2:], mode="bilinear", align_corners=False)
