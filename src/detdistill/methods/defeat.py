"""DeFeat: imitate objects and background apart, because together the objects drown the rest.

On the neck, optionally the backbone, and on the proposals of two-stage detectors, each part has its
own mean and its own weight.

Paper: Guo et al., "Distilling Object Detectors via Decoupled Features", CVPR 2021
    (arXiv 2103.14475).
Reads: the necks, the objects; the backbones and the teacher's proposals where they are imitated.
Differs: weights are the paper's; the released VOC settings are 3 and 12 on the neck alone. An
    adapter exists only where widths differ (released: always, of size 3: `adapter="conv3"`).
    Regions of the teacher are its best proposals and the objects, labelled by their overlap with
    the objects; the released code draws a random sample, labels it with the student's sample, takes
    the largest label for background and one temperature for both parts. Proposals of different
    ranks count alike. How the paper's random mask is made is not said: here cells are drawn, as
    many as the objects cover. The backbone's weights and the decay are our reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from detdistill import losses
from detdistill.methods.parts.decoupled import (
    DecoupledBackbone,
    DecoupledNeck,
    DecoupledProposals,
)
from detdistill.structures import Reads, Spec, Step


class DeFeat(DecoupledProposals, DecoupledBackbone, DecoupledNeck):
    """Half the mean squared difference of the necks, and divergence of proposals, part by part."""

    pulls: ClassVar[str] = "neck"
    citation: ClassVar[str] = """@inproceedings{guo2021defeat,
  title = {Distilling Object Detectors via Decoupled Features},
  author = {Guo, Jianyuan and Han, Kai and Wang, Yunhe and Wu, Han and Chen, Xinghao and
            Xu, Chunjing and Xu, Chang},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2021},
}"""

    decay: losses.Fading = "none"
    """How all weights fall to nothing by the end of the training."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides; anchors for the fine mask, equal classes for proposals."""
        self.fit_neck(teacher, student)
        self.fit_proposals(teacher, student)
        self.fit_backbone(teacher, student)

    @property
    def reads(self) -> Reads:
        """The backbone if it is imitated; if proposals are shared, what looks at them."""
        shares = self.looks is not None
        return Reads(predictions=self.looks == "teacher", backbone=self.backbone, head=shares)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`object` and `background`, `backbone_...` of both, `positive` and `negative`."""
        terms = self.neck_terms(step) | self.backbone_terms(step)
        terms |= self.proposal_terms(step, self.seed)
        left = losses.faded(self.decay, step.progress)
        return {name: left * term for name, term in terms.items()}
