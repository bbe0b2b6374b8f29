"""TADF: imitate objects only, there only where the teacher does better, and less and less.

The neck is imitated under a bell over each object, scores and boxes on positives alone.

Paper: Sun et al., "Distilling Object Detectors with Task Adaptive Regularization", 2020
    (arXiv 2006.13108; no code was released: the bells are as in DeFeat's, all else is our reading).
Reads: the necks, the objects, the predictions of both, the label assignment; of two-stage detectors
    the second stage on shared proposals.
Differs: the paper's idea is kept, its formulas were not at hand: a positive counts in full where
    the teacher's probability of its class, or the overlap of the teacher's box, is higher than the
    student's, and not otherwise. Boxes are compared by generalised IoU in pixels, so that heads of
    any kind will do; all weights are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from detdistill import losses, masks
from detdistill.levels import Levels
from detdistill.methods.method import Method
from detdistill.methods.parts import pair
from detdistill.methods.parts.necks import adapted, cell_errors, half_means
from detdistill.methods.parts.proposals import Whose
from detdistill.methods.parts.samples import Samples, of_priors, of_regions
from detdistill.structures import Reads, Spec, Step


class TADF(Method):
    """Difference of the necks under bells, of scores and boxes where the teacher does better."""

    families: ClassVar[tuple[str, ...]] = ("dense", "region")
    pulls: ClassVar[str] = "neck and predictions"
    needs: ClassVar[Reads] = Reads(predictions=True, targets=True)
    reading: ClassVar[str] = (
        "The authors released no code, and of the paper's formulas only the bells were at hand."
    )
    citation: ClassVar[str] = """@misc{sun2020tadf,
  title = {Distilling Object Detectors with Task Adaptive Regularization},
  author = {Sun, Ruoyu and Tang, Fuhui and Zhang, Xiaopeng and Xiong, Hongkai and Tian, Qi},
  year = {2020},
}"""

    neck_weight: float = 4.0
    """Of the neck under the bells, averaged over the levels."""
    cls_weight: float = 1.0
    """Of the class scores of positives."""
    box_weight: float = 1.0
    """Of the boxes of positives."""
    counts: Literal["better", "quality", "all"] = "better"
    """How much a positive counts: in full where the teacher does better than the student, as much
    as the teacher is right (probability of the class, overlap of the box), or always in full."""
    temperature: float = 1.0
    """Of the class scores."""
    decay: losses.Fading = "linear"
    """How all weights fall to nothing by the end of the training."""
    proposals: Whose = "teacher"
    """Whose proposals both second stages look at, in two-stage detectors."""
    count: int = 512
    """Proposals of each image."""
    adapter: pair.Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    @property
    def reads(self) -> Reads:
        """In two-stage detectors the teacher also looks at shared proposals."""
        return self.needs | Reads(head=self.two_stages)

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        pair.same_predictions("tadf", teacher, student)
        self.adapters = pair.adapters("tadf", self.adapter, teacher, student)
        self.strides = student.strides
        self.two_stages = student.family == "region"

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`neck`, `cls` and `box`."""
        said = self.samples(step)
        number = step.world_mean(said.positive.float().sum()).clamp(min=1)
        named, found = (self.worth(*d) * said.positive for d in (said.scores, said.overlaps))
        errors = cell_errors(adapted(self.adapters, step))
        terms = {
            "neck": self.neck_weight * half_means(errors, self.bells(step), step).mean(),
            "cls": self.cls_weight * (said.divergence * named).sum() / number,
            "box": self.box_weight * (losses.giou_loss(*said.corners) * found).sum() / number,
        }
        left = losses.faded(self.decay, step.progress)
        return {name: left * term for name, term in terms.items()}

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """The bells over the `objects`."""
        return {"objects": self.bells(step)}

    def bells(self, step: Step) -> Levels:
        """(B, H, W) per level, 1 in the middle of an object, less to its border."""
        return masks.pyramid(masks.gaussian_cells, step.truth, step.student.neck, self.strides)

    def samples(self, step: Step) -> Samples:
        """Whose scores and boxes are compared."""
        if self.two_stages:
            return of_regions(step, self.proposals, self.count, self.temperature)
        return of_priors(step, self.temperature)

    def worth(self, student: Tensor, teacher: Tensor) -> Tensor:
        """How much each sample counts by how well student and teacher do: (B, P) twice."""
        if self.counts == "better":
            return (teacher > student).to(teacher)
        return teacher if self.counts == "quality" else torch.ones_like(teacher)
