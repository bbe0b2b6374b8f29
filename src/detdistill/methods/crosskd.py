"""CrossKD: the student's features go through the rest of the teacher's head.

What comes out should equal the teacher's predictions; the student's own last layers learn from the
labels alone, so that the two do not pull at each other.

Paper: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024
    (arXiv 2306.11369).
Reads: the teacher's predictions, the head towers of both at one cut, the label assignment; of
    two-stage detectors the student's regions, of query detectors the encoders.
Differs: as in the released code, not the paper, the student's features are first given the
    teacher's mean and deviation per channel, and stand after the activation. All normalisers are
    means over ranks, and finite in batches without positives: FCOS's has a floor of 1 (released:
    `floor=1e-6`, a loss of millions) and the sum of the teacher's confidence one of 2^-23. Channels
    of one element are finite (released: NaN, `lone=False`). No code was released for teachers with
    other priors per cell (table 7), which are compared on their own priors, where a cell counts as
    the student assigned it; for Faster R-CNN and Deformable DETR (table 11), whose features are not
    aligned and whose distances are ours; and for table 12, where the target is constant.
"""

from __future__ import annotations

from typing import ClassVar, cast

from detdistill.methods.parts import crossing
from detdistill.methods.parts.mimicry import Mimicry, Said, sampled
from detdistill.structures import Head, QueryHead, Reads, RegionHead, Spec, Step


class CrossKD(Mimicry):
    """Distance of the cross-head predictions from the teacher's."""

    families: ClassVar[tuple[str, ...]] = ("dense", "region", "query")
    pulls: ClassVar[str] = "crossed predictions"
    citation: ClassVar[str] = """@inproceedings{wang2024crosskd,
  title = {{CrossKD}: Cross-Head Knowledge Distillation for Object Detection},
  author = {Wang, Jiabao and Chen, Yuming and Zheng, Zhaohui and Li, Xiang and Cheng, Ming-Ming
            and Hou, Qibin},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2024},
}"""

    cut: int | None = None
    """Layers of a one-stage student's head before the crossing: 0 crosses at the neck, all of them
    is prediction mimicking. None for the released choice: all but two, in FCOS all but three."""
    align: bool = True
    """Give the features of a one-stage student the teacher's mean and deviation."""
    lone: bool = True
    """Align channels of one element, too; in the released code they become NaN."""
    preactivation: bool = False
    """Cross before the activation, as the released source reads but does not run."""
    strategy: crossing.Strategy = "a"
    """Table 12's. `a`: the student's features, crossed, say what the teacher says; `b`: the student
    says what the teacher's features, crossed, say; `c`: the student says what its own features,
    crossed, say; `d`: the teacher's features, crossed, say what the teacher says."""

    @property
    def reads(self) -> Reads:
        """One cut of the towers, or what stands for it in the other families."""
        return crossing.reads(self.place, preactivation=self.preactivation)

    def pulling(self) -> list[str]:
        """The crossed predictions, or the student's own."""
        return ["predictions"] if self.strategy in {"b", "c"} else super().pulling()

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same classes, and features of one form where they cross."""
        self.place = crossing.place(self.cut, self.strategy, teacher, student)
        self.compare(crossing.spoken_by(self.place, self.strategy, teacher, student))

    def predicted(self, step: Step) -> Said:
        """What the teacher's head makes of the student's features."""
        head, student, teacher = step.teacher_head, step.student, step.teacher
        if self.place.family == "region":
            return cast("RegionHead", head).resume(sampled(step).trace)
        if self.place.family == "query":
            return cast("QueryHead", head).resume(student.encoder)
        if self.place.cut is None:
            return student.dense
        towers = crossing.entering(
            student.towers, teacher.towers, self.place.cut, align=self.align, lone=self.lone
        )
        return cast("Head", head).resume(towers, start=self.place.cut)

    def compared(self, step: Step) -> tuple[Said, Said]:
        """What is predicted, and what the teacher says; or as another strategy has it."""
        return crossing.compared(self.strategy, self.predicted, step)
