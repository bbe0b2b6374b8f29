"""Regions: the student's neck should equal the teacher's, in one region of the image only.

The baselines of LD's comparison of regions: inside the objects, on the positives, near the objects,
or where teacher and student differ most.

Paper: Zheng et al., "Localization Distillation for Object Detection", TPAMI 2023 (table "logit
    mimicking versus feature imitation").
Reads: the necks; the assignment, the objects and the predictions of both, as the region needs.
Differs: an adapter bridges a difference in width (released: none). `different` suppresses boxes
    image by image; the released code lets boxes of different images suppress each other
    (`jointly=True`). As released, levels without positives are silent unless `levels="all"`. A
    level's mean is over its cells on all ranks. A cell is in a region if any of its priors is. Of
    two-stage detectors (not in the paper) the first stage makes the regions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from detdistill import boxes, instances, losses, masks
from detdistill.levels import Levels, cells_of
from detdistill.methods.method import Method
from detdistill.methods.parts import assignment
from detdistill.methods.parts.necks import adapted, by_level, cell_errors
from detdistill.methods.parts.pair import Adapter, adapters, needs_anchors, same_predictions
from detdistill.structures import Reads, Spec, Step


class Regions(Method):
    """Mean squared difference of the necks over the cells of a region."""

    families: ClassVar[tuple[str, ...]] = ("dense", "region")
    pulls: ClassVar[str] = "neck"
    selects: ClassVar[bool] = True
    citation: ClassVar[str] = """@article{zheng2023ld,
  title = {Localization Distillation for Object Detection},
  author = {Zheng, Zhaohui and Ye, Rongguang and Hou, Qibin and Ren, Dongwei and Wang, Ping and
            Zuo, Wangmeng and Cheng, Ming-Ming},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year = {2023},
}"""

    weight: float = 2.0
    """Of every level."""
    region: Literal["inside", "main", "fine", "different"] = "fine"
    """Inside the objects; the positives; near the objects (FGFI); where both differ most (GI)."""
    levels: assignment.Speaking = "positive"
    """Which levels speak: those on which something is positive, as released, or all."""
    jointly: bool = False
    """Whether boxes of different images suppress each other in `different`, as released."""
    count: int = 10
    """Most cells per level in `different`."""
    overlap: float = 0.3
    """IoU from which boxes suppress each other in `different`."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    @property
    def reads(self) -> Reads:
        """The assignment, and the teacher's predictions where they make the region."""
        return Reads(predictions=self.region == "different", targets=True)

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("regions", teacher, student)
        if self.region == "fine":
            needs_anchors("regions", student)
        self.adapters = adapters("regions", self.adapter, teacher, student)
        self.background = 1 if student.family == "region" else len(student.classes)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        errors = cell_errors(adapted(self.adapters, step))
        levels = zip(errors, self.cells(step), self.weights(step), strict=True)
        return by_level(
            weight * losses.mean_over(error, cell, step.world_mean, least=losses.EPS)
            for error, cell, weight in levels
        )

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """The cells of the `region`, on levels that speak."""
        levels = zip(self.cells(step), self.weights(step), strict=True)
        return {"region": tuple(cell * (weight > 0) for cell, weight in levels)}

    def weights(self, step: Step) -> list[Tensor]:
        """() per level, 0 on silent ones."""
        heard = assignment.speaking(step, self.background, self.levels)
        return [self.weight * level for level in heard]

    def cells(self, step: Step) -> Levels:
        """(B, H, W) bool per level, the cells in the region."""
        return cells_of(self.chosen(step), step.student.neck)

    def chosen(self, step: Step) -> Tensor:
        """(B, N) bool, the priors in the region."""
        student = step.student.dense
        if self.region == "main":
            return assignment.positive(step, self.background)
        if self.region == "inside":
            return masks.inside_objects(boxes.centers(student.flat_priors()), step.truth)
        if self.region == "fine":
            inside = student.inside(step.truth.sizes)
            return masks.fine_grained(student.priors, step.truth, scope="image", inside=inside)
        apart, box = self.difference(step)
        return masks.most_different(
            apart,
            box,
            [len(level) for level in student.priors],
            count=self.count,
            overlap=self.overlap,
            jointly=self.jointly,
        )

    def difference(self, step: Step) -> tuple[Tensor, Tensor]:
        """(B, N) largest difference of a class score, and (B, N, 4) the box of who is surer."""
        return instances.disagreement(step.student.dense, step.teacher.dense, gap="class")
