"""GID: the boxes on which teacher and student disagree most teach, whatever the labels say of them.

Of each image the few most different boxes are taken. The student should hold the same features of
them, have them equally far from each other, and say the same of their priors.

Paper: Dai et al., "General Instance Distillation for Object Detection", CVPR 2021
    (arXiv 2103.02340).
Reads: the necks, the predictions of both.
Differs: as in the authors' code, boxes are chosen by the difference of both best class scores
    (`gap="class"`: the largest difference of a class's, as the paper has it). The class term is 0
    where both agree; the released value is larger by the teacher's own entropy (`entropy=True`),
    with the same gradient. Priors stand for a box as for an object in RetinaNet, whatever the
    student is; distributions of edges are compared by their mean. Counts are means over ranks. The
    adapter is trained, and exists only where widths differ (released: one per level, of size 3,
    and by an oversight never applied).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from detdistill import instances, losses
from detdistill.levels import Levels, cells_of
from detdistill.methods.method import Method
from detdistill.methods.parts.pair import Adapter, adapters, needs_anchors, same_predictions
from detdistill.methods.parts.predictions import emitted
from detdistill.structures import Reads, Spec, Step


class GID(Method):
    """Difference of features, of their relations and of predictions in the most different boxes."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "neck and predictions"
    needs: ClassVar[Reads] = Reads(predictions=True)
    selects: ClassVar[bool] = True
    citation: ClassVar[str] = """@inproceedings{dai2021gid,
  title = {General Instance Distillation for Object Detection},
  author = {Dai, Xing and Jiang, Zeren and Wu, Zhao and Bao, Yiping and Wang, Zhicheng and
            Liu, Si and Zhou, Erjin},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2021},
}"""

    feature_weight: float = 5e-4
    """Of the features, a sum over the channels."""
    relation_weight: float = 40.0
    """Of the distances between the features of two boxes."""
    cls_weight: float = 0.1
    """Of the class scores of the boxes' priors."""
    box_weight: float = 1.0
    """Of the numbers that the head emits for the boxes of these priors."""
    gap: instances.Gap = "best"
    """What makes boxes different: the best class scores, or the class that differs most."""
    count: int = 10
    """Most boxes per image."""
    candidates: int = 3000
    """Most boxes per image that are considered."""
    overlap: float = 0.3
    """IoU from which boxes suppress each other."""
    side: float = 10.0
    """Pixels that both sides of a box exceed."""
    size: int = 10
    """Cells per side of a box's features."""
    least: float = 0.5
    """IoU from which a prior stands for a box."""
    entropy: bool = False
    """Add the teacher's own entropy to the class term, as released; a constant."""
    adapter: Adapter = "auto"
    """Layer between the features of the student's boxes and the comparison, one for all levels."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors, with extent, and the same classes."""
        same_predictions("gid", teacher, student)
        needs_anchors("gid", student)
        self.adapt = adapters("gid", self.adapter, teacher, student)[0]

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`feature`, `relation`, `cls` and `box`."""
        found, valid = self.selected(step)
        features = (
            self.adapt(self.features(step.student.neck, found, step)),
            self.features(step.teacher.neck, found, step),
        )
        said, wanted = step.student.dense, step.teacher.dense
        cls = losses.binary_divergence(
            said.flat_logits(), wanted.flat_logits(), entropy=self.entropy
        ).sum(dim=-1)
        box = (emitted(said) - emitted(wanted)).abs().sum(dim=-1)
        there, chosen = valid.flatten(), self.priors(found, valid, step)
        apart = losses.squared_error(*features).sum(dim=1).mean(dim=(1, 2))
        relation = losses.relation_error(*features, there, step.world_mean)
        return {
            "feature": self.feature_weight * losses.mean_over(apart, there, step.world_mean),
            "relation": self.relation_weight * relation,
            "cls": self.cls_weight * losses.mean_over(cls, chosen, step.world_mean),
            "box": self.box_weight * losses.mean_over(box, chosen, step.world_mean),
        }

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """The cells in the most different `boxes`, and those whose `priors` stand for one."""
        (found, valid), neck = self.selected(step), step.student.neck
        priors = cells_of(self.priors(found, valid, step), neck)
        strides = step.student.dense.strides
        return {"boxes": instances.covered(neck, strides, found, valid), "priors": priors}

    def selected(self, step: Step) -> tuple[Tensor, Tensor]:
        """(B, M, 4) the boxes, and (B, M) which of them there are."""
        apart, corners = instances.disagreement(step.student.dense, step.teacher.dense, self.gap)
        return instances.general_instances(
            apart,
            corners,
            step.truth.sizes,
            candidates=self.candidates,
            overlap=self.overlap,
            count=self.count,
            side=self.side,
        )

    def features(self, neck: Levels, found: Tensor, step: Step) -> Tensor:
        """(B·M, C, size, size)."""
        precise = tuple(map(losses.precise, neck))
        return instances.pooled(precise, step.student.dense.strides, found, self.size)

    def priors(self, found: Tensor, valid: Tensor, step: Step) -> Tensor:
        """(B, N) bool: which stand for one of the boxes."""
        return instances.matched(step.student.dense.flat_priors(), found, valid, self.least)
