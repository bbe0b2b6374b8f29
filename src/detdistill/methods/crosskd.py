"""CrossKD: the student's head features go through the rest of the teacher's head.

What comes out should equal the teacher's predictions; the student's own last layers learn from the
labels alone, so that the two do not pull at each other.

Paper: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024
    (arXiv 2306.11369).
Reads: the teacher's predictions, the head towers of both at one cut, the label assignment.
Differs: as in the released code, not the paper, the student's features are first given the
    teacher's mean and deviation per channel, and stand after the activation. All normalisers are
    means over ranks, and finite in batches without positives: FCOS's has a floor of 1 (released:
    1e-6, a loss of millions) and the sum of the teacher's confidence one of 2^-23. The
    statistics of one-element maps are finite.
"""

from __future__ import annotations

from typing import ClassVar, cast

from torch.nn import functional as F

from detdistill import losses
from detdistill.methods.mimicry import Mimicry, published
from detdistill.methods.pair import same_classes, same_strides, same_towers
from detdistill.structures import DensePredictions, Head, Levels, Reads, Spec, Step, Towers


class CrossKD(Mimicry):
    """Distance of the cross-head predictions from the teacher's."""

    pulls: ClassVar[str] = "crossed predictions"
    citation: ClassVar[str] = """@inproceedings{wang2024crosskd,
  title = {{CrossKD}: Cross-Head Knowledge Distillation for Object Detection},
  author = {Wang, Jiabao and Chen, Yuming and Zheng, Zhaohui and Li, Xiang and Cheng, Ming-Ming
            and Hou, Qibin},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2024},
}"""

    cut: int | None = None
    """Blocks of the student's tower before the crossing, 0 crosses at the neck. None for the
    released choice: all but the last block, in FCOS all but two."""
    align: bool = True
    """Give the student's features the teacher's mean and deviation."""
    preactivation: bool = False
    """Cross before the activation, as the released source reads but does not run."""

    @property
    def reads(self) -> Reads:
        """One cut of the towers, the teacher's predictions, the assignment."""
        return Reads(
            predictions=True,
            targets=True,
            towers=frozenset({self.start}),
            preactivation=self.preactivation,
        )

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs heads with towers of one width, on the same priors and classes."""
        same_strides("crosskd", teacher, student)
        same_classes("crosskd", teacher, student)
        after = published(teacher).after
        depth = min(teacher.tower_depth, student.tower_depth)
        self.start = max(depth - after, 0) if self.cut is None else self.cut
        same_towers("crosskd", self.start, teacher, student)
        self.compare(teacher)

    def predicted(self, step: Step) -> DensePredictions:
        """What the teacher's head makes of the student's features."""
        student, teacher = step.student.towers, step.teacher.towers
        towers = Towers(
            cls={self.start: self.held(student.cls[self.start], teacher.cls[self.start])},
            reg={self.start: self.held(student.reg[self.start], teacher.reg[self.start])},
        )
        return cast("Head", step.teacher_head).resume(towers, start=self.start)

    def held(self, student: Levels, teacher: Levels) -> Levels:
        """The student's features of one branch as they enter the teacher's layers."""
        if self.align:
            student = tuple(map(losses.with_statistics_of, student, teacher))
        return student if self.start == 0 else tuple(map(F.relu, student))
