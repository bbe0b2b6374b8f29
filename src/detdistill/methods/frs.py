"""FRS: imitate neck and class scores where the teacher is sure of some class, object or not.

The teacher's best class score of a cell says how rich the cell is, and is its weight.

Paper: Du et al., "Distilling Object Detectors with Feature Richness", NeurIPS 2021
    (arXiv 2111.00674).
Reads: the necks, the predictions of both; of two-stage detectors those of the first stage.
Differs: the class term is 0 where both agree; the released value is larger by the teacher's own
    entropy (`entropy=True`), with the same gradient. The sums of the weights are means over ranks
    and have a floor of 2^-23. An adapter exists only where widths differ (released: always, of
    size 3: `adapter="conv3"`). The teacher's predictions are never differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from detdistill import losses
from detdistill.boxes import DistanceCoder
from detdistill.methods.method import Method
from detdistill.methods.parts.pair import Adapter, adapters, or_published, same_predictions
from detdistill.structures import Reads, Spec, Step


class FRS(Method):
    """Difference of necks and of class scores, weighted by the teacher's class scores."""

    families: ClassVar[tuple[str, ...]] = ("dense", "region")
    pulls: ClassVar[str] = "neck and predictions"
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

    @property
    def reads(self) -> Reads:
        """The teacher's predictions."""
        return Reads(predictions=True)

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("frs", teacher, student)
        self.adapters = adapters("frs", self.adapter, teacher, student)
        self.weights = or_published((self.neck_weight, self.cls_weight), _published(student))

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`neck` and `cls`, each summed over the levels."""
        grown = min(1.0, (step.index + 1) / max(self.warm_up, 1))
        levels = [self._level(i, step) for i in range(len(self.adapters))]
        totals = (torch.stack(terms).sum() for terms in zip(*levels, strict=True))
        pairs = zip(("neck", "cls"), self.weights, totals, strict=True)
        return {name: grown * weight * total for name, weight, total in pairs}

    def _level(self, i: int, step: Step) -> tuple[Tensor, Tensor]:
        """The two terms of a level before their weights."""
        sure = losses.precise(step.teacher.dense.logits[i])
        rich, logits = sure.sigmoid().amax(dim=1, keepdim=True), step.student.dense.logits[i]
        total = step.world_mean(rich.sum()).clamp(min=losses.EPS)
        neck = losses.squared_error(self.adapters[i](step.student.neck[i]), step.teacher.neck[i])
        cls = losses.binary_divergence(logits, sure, entropy=self.entropy)
        return (rich * neck).sum() / total, (rich * cls).sum() / total


def _published(spec: Spec) -> tuple[float, float]:
    """The released weights of neck and classes."""
    if spec.family == "region":
        return 0.002, 0.1
    if spec.bins is not None:
        return 0.1, 0.05
    return (0.01, 0.05) if isinstance(spec.coder, DistanceCoder) else (0.005, 0.02)
