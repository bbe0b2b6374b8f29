"""FRS: imitate neck and class scores where the teacher is sure of some class, object or not.

The teacher's best class score of a cell says how rich the cell is, and is its weight.

Paper: Du et al., "Distilling Object Detectors with Feature Richness", NeurIPS 2021
    (arXiv 2111.00674).
Reads: the necks, the predictions of both; of two-stage detectors those of the first stage.
Differs: the class term is 0 where both agree; the released value is larger by the teacher's own
    entropy (`entropy=True`), with the same gradient. Probabilities are compared, as released, so a
    score that rounds to 0 or 1 has no gradient. The weights grow from 1/500 of themselves at the
    first step (released: 0). The sums of the weights are means over ranks. An adapter exists only
    where widths differ (released: always, of size 3: `adapter="conv3"`). The teacher's predictions
    are never differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from detdistill import losses
from detdistill.levels import Levels
from detdistill.methods.method import Method
from detdistill.methods.parts.necks import adapted
from detdistill.methods.parts.pair import (
    Adapter,
    adapters,
    kind_of_head,
    or_published,
    same_predictions,
)
from detdistill.structures import Reads, Spec, Step

RELEASED = {
    "distributions": (0.1, 0.05),
    "distances": (0.01, 0.05),
    "anchors": (0.005, 0.02),
    "regions": (0.002, 0.1),
}
"""Weights of neck and classes, by the kind of the head."""


class FRS(Method):
    """Difference of necks and of class scores, weighted by the teacher's class scores."""

    families: ClassVar[tuple[str, ...]] = ("dense", "region")
    pulls: ClassVar[str] = "neck and predictions"
    needs: ClassVar[Reads] = Reads(predictions=True)
    citation: ClassVar[str] = """@inproceedings{du2021frs,
  title = {Distilling Object Detectors with Feature Richness},
  author = {Du, Zhixing and Zhang, Rui and Chang, Ming and Zhang, Xishan and Liu, Shaoli and
            Chen, Tianshi and Chen, Yunji},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021},
}"""

    neck_weight: float | None = None
    """None for the released one: 0.1 in GFL, 0.01 in FCOS, 0.005 with anchors (RetinaNet), 0.002 in
    two-stage detectors."""
    cls_weight: float | None = None
    """None for the released one: 0.05 in GFL and FCOS, 0.02 with anchors (RetinaNet), 0.1 in
    two-stage detectors."""
    warm_up: int = 500
    """Steps over which both weights grow from nothing."""
    entropy: bool = False
    """Add the teacher's own entropy to the class term, as released; a constant."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("frs", teacher, student)
        self.adapters = adapters("frs", self.adapter, teacher, student)
        published = RELEASED[kind_of_head(student)]
        self.weights = or_published((self.neck_weight, self.cls_weight), published)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`neck` and `cls`, each summed over the levels."""
        grown = min(1.0, (step.index + 1) / self.warm_up) if self.warm_up else 1.0
        rich = self.areas(step)["rich"]
        pairs = enumerate(adapted(self.adapters, step))
        neck = [self._over(rich[i], losses.squared_error(*pair), step) for i, pair in pairs]
        said = zip(rich, step.student.dense.logits, step.teacher.dense.logits, strict=True)
        cls = [self._over(cells, self._divergence(*logits), step) for cells, *logits in said]
        totals = zip(("neck", "cls"), self.weights, (neck, cls), strict=True)
        return {name: grown * weight * torch.stack(terms).sum() for name, weight, terms in totals}

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """Which cells are `rich`: the best class score of the teacher."""
        logits = map(losses.precise, step.teacher.dense.logits)
        return {"rich": tuple(level.sigmoid().amax(dim=1) for level in logits)}

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        said, wanted = (losses.precise(logits).sigmoid() for logits in (student, teacher))
        lost = F.binary_cross_entropy(said, wanted, reduction="none")
        if self.entropy:
            return lost
        return lost - losses.soft_bce(teacher, wanted)

    def _over(self, cells: Tensor, loss: Tensor, step: Step) -> Tensor:
        """(B, H, W) and (B, C, H, W) -> (): the sum over the channels, the mean over the cells."""
        return losses.mean_over(loss, cells.unsqueeze(1), step.world_mean, least=losses.LEAST_SUM)
