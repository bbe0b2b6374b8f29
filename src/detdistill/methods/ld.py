"""LD: each edge of a box is a distribution over distances, to be met by the student's.

It learns on its positives and in the valuable region around them; classes, on positives alone.

Paper: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022
    (arXiv 2102.12252), and "Localization Distillation for Object Detection", TPAMI 2023.
Reads: the predictions of both, the label assignment, the objects.
Differs: `nearness="covered"` is the released code's, whose DIoU divides by the prior instead of the
    union; `"iou"` is the paper's. As released, box terms are not divided by the positives and grow
    with the objects of a batch, and classes in the valuable region do not count. Images without
    objects have no valuable region (released: an error). The class term's positives of each level
    are means over ranks. The imitation of features is not part of this method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from detdistill import losses, masks
from detdistill.levels import Levels, cells_of, to_priors
from detdistill.methods.method import Method, UnsuitablePairError
from detdistill.methods.parts import assignment
from detdistill.methods.parts.pair import same_predictions
from detdistill.methods.parts.predictions import edge_divergence
from detdistill.structures import Reads, Spec, Step


class LD(Method):
    """Divergence of the box edges' distributions, and of the classes."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "predictions"
    needs: ClassVar[Reads] = Reads(neck=False, predictions=True, targets=True)
    citation: ClassVar[str] = """@inproceedings{zheng2022ld,
  title = {Localization Distillation for Dense Object Detection},
  author = {Zheng, Zhaohui and Ye, Rongguang and Wang, Ping and Ren, Dongwei and Zuo, Wangmeng
            and Hou, Qibin and Cheng, Ming-Ming},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022},
}"""

    main_weight: float = 0.25
    """Of the boxes of positives, each counted by the student's best class probability."""
    valuable_weight: float = 0.0625
    """Of the boxes in the valuable region, each counted by its overlap; released as 0.25 of a
    quarter."""
    cls_weight: float = 10.0
    """Of the classes of positives: a mean on each level, summed over the levels."""
    temperature: float = 10.0
    """Of box distributions."""
    cls_temperature: float = 2.0
    """Of classes, which are compared as one distribution."""
    ratio: float = 0.25
    """How far out the valuable region reaches, as a share of the threshold of positives."""
    nearness: masks.RegionDistance = "covered"
    """What makes a prior valuable: how much of it the object covers, or their IoU; in both, less
    the distance of their centres."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs distributions of equally many bins on the same priors."""
        same_predictions("ld", teacher, student)
        if student.bins is None or teacher.bins != student.bins:
            raise UnsuitablePairError(
                f"ld compares distributions of edges, but the teacher's have {teacher.bins or 0} "
                f"bins and the student's {student.bins or 0}: choose detectors with equally many, "
                "such as gfl, or bckd, which compares boxes."
            )
        self.bins, self.background = student.bins, len(student.classes)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`main`, `valuable` and `cls`."""
        student, teacher = step.student.dense, step.teacher.dense
        box = edge_divergence(student, teacher, self.bins, self.temperature) / self.bins
        cls = losses.kl_divergence(
            student.flat_logits(), teacher.flat_logits(), self.cls_temperature
        )
        cls = cls / self.background * self.share_of_level(step)
        return {
            "main": self.main_weight * (box * self.main(step)).sum(),
            "valuable": self.valuable_weight * (box * self.valuable(step)).sum(),
            "cls": self.cls_weight * cls.sum(),
        }

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """Where boxes count: on positives, and in the valuable region."""
        parts = {"positives": self.main(step), "valuable": self.valuable(step)}
        return {name: cells_of(part, step.student.neck) for name, part in parts.items()}

    def main(self, step: Step) -> Tensor:
        """(B, N) the student's best class probability on positives, 0 elsewhere."""
        score = step.student.dense.probabilities().detach().amax(dim=-1)
        return score * assignment.positive(step, self.background)

    def valuable(self, step: Step) -> Tensor:
        """(B, N) overlap with the object in whose valuable region a prior lies, 0 elsewhere."""
        student = step.student.dense
        return masks.valuable_region(
            student.flat_priors(),
            tuple(map(len, student.priors)),
            step.truth,
            inside=student.inside(step.truth.sizes),
            ratio=self.ratio,
            nearness=self.nearness,
        )

    def share_of_level(self, step: Step) -> Tensor:
        """(B, N) each positive as a share of its level's."""
        counts = assignment.counts(step, self.background)
        number = to_priors(counts, step.student.dense.priors).clamp(min=losses.EPS)
        return assignment.positive(step, self.background) / number
