"""TID: imitate the teacher's neck where teacher and student show that it matters.

Every cell is valued by how well the teacher detects there, by how far the student lags behind, and
by how near an object is; three tiers of value are imitated with different strength.

Paper: Su, Jian and Yu, "Task Integration Distillation for Object Detectors" (no code was released).
Reads: the necks, the predictions of both, the objects.
Differs: the paper leaves much open and misprints some; every choice is a setting. Defaults where it
    contradicts itself: decoded boxes, not anchors, are compared with the objects; the score of a
    cell is a product (the overview says sum); the teacher's score counts everywhere; suppression
    precedes the selection of weak cells; nearness falls with the distance (as printed it grows);
    the loss is squared (as printed it is signed) and divided like DeFeat's, per tier and level.
    Where the necks differ in size, the student's is resized. Of two-stage detectors the first
    stage is looked at, which knows one class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from detdistill.levels import Levels, unflatten
from detdistill.methods.parts.necks import adapted, by_level
from detdistill.methods.parts.pair import (
    Adapter,
    adapters,
    same_classes,
    same_family,
    same_level_count,
)
from detdistill.methods.parts.tiers import Tiered
from detdistill.methods.parts.values import Valued, at_points_of
from detdistill.structures import Reads, Spec, Step


class TID(Tiered, Valued):
    """Squared difference of the necks, weighted by the value of each cell."""

    families: ClassVar[tuple[str, ...]] = ("dense", "region")
    pulls: ClassVar[str] = "neck"
    needs: ClassVar[Reads] = Reads(predictions=True)
    selects: ClassVar[bool] = True
    reading: ClassVar[str] = (
        "The authors released no code. Where the paper leaves a choice, the choice is ours."
    )
    citation: ClassVar[str] = """@misc{su_tid,
  title = {Task Integration Distillation for Object Detectors},
  author = {Su, Hai and Jian, Zhenwen and Yu, Songsen},
}"""

    weight: float = 1.0
    """Of the mean over levels."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs pyramids of one height, and equal classes."""
        same_family("tid", teacher, student)
        same_level_count("tid", teacher, student)
        same_classes("tid", teacher, student)
        self.fit(teacher, student)
        self.adapters = adapters("tid", self.adapter, teacher, student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        values, neck = self.values(step), step.teacher.neck
        maps = zip(unflatten(values.mask, neck), unflatten(values.tier, neck), strict=True)
        levels = zip(adapted(self.adapters, step), maps, strict=True)
        share = self.weight / len(self.adapters)
        return by_level(share * self.tiered(*pair, *where, step) for pair, where in levels)

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """The importance of every cell, and what it is made of."""
        values, said = self.values(step), step.teacher.dense
        student = at_points_of(said, values.student.score, step.student.dense)
        maps = {"importance": values.mask, "near": values.near, "key": values.key}
        maps |= {"weak": values.weak, "the student's score": student}
        return {name: unflatten(flat, step.teacher.neck) for name, flat in maps.items()}
