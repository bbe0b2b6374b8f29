"""PFI: imitate the neck where the class scores of student and teacher differ.

A cell whose features differ but whose scores agree is left alone.

Paper: Li et al., "Knowledge Distillation for Object Detection via Rank Mimicking and
    Prediction-guided Feature Imitation", AAAI 2022 (arXiv 2112.04840).
Reads: the necks, the predictions of both.
Differs: the authors released no code; the formula is checked against mmrazor's, which compares
    logits (`scores="logit"`) where the paper has probabilities. As there, gradients flow through
    the difference of the scores too, unless `detach`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from detdistill.losses import precise, squared_error
from detdistill.methods.method import Method
from detdistill.methods.parts.pair import Adapter, adapters, same_predictions
from detdistill.structures import Reads, Spec, Step


class PFI(Method):
    """Squared difference of the necks times that of the class scores, cell by cell."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "neck"
    citation: ClassVar[str] = """@inproceedings{li2022rank,
  title = {Knowledge Distillation for Object Detection via Rank Mimicking and Prediction-guided
           Feature Imitation},
  author = {Li, Gang and Li, Xiang and Wang, Yujie and Zhang, Shanshan and Wu, Yichao and
            Liang, Ding},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2022},
}"""

    weight: float = 1.5
    """Of the mean over the levels."""
    scores: Literal["probability", "logit"] = "probability"
    """What of the classes is compared."""
    detach: bool = False
    """Let the difference of the scores be a weight only, without gradient."""
    reduction: Literal["mean", "norm"] = "mean"
    """Mean over the cells, or, as mmrazor's last version, the root of the sum of the squares over
    the cells of an image, by the number of cells in the batch."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    @property
    def reads(self) -> Reads:
        """The teacher's predictions."""
        return Reads(predictions=True)

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("pfi", teacher, student)
        self.adapters = adapters("pfi", self.adapter, teacher, student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        levels = range(len(self.adapters))
        return {f"level{i}": self.of_images(i, step).mean() for i in levels}

    def of_images(self, i: int, step: Step) -> Tensor:
        """(B,) of one level, with its share of the weight."""
        student = self.adapters[i](step.student.neck[i])
        neck = squared_error(student, step.teacher.neck[i]).mean(dim=1)
        cells = (self._apart(i, step) * neck).flatten(1)
        share = self.weight / len(self.adapters)
        if self.reduction == "norm":
            return share * cells.norm(dim=1) / cells.numel()
        return share * cells.mean(dim=1)

    def _apart(self, i: int, step: Step) -> Tensor:
        """(B, H, W) mean squared difference of the class scores of a cell."""
        said = [precise(output.dense.logits[i]) for output in (step.student, step.teacher)]
        if self.scores == "probability":
            said = [logits.sigmoid() for logits in said]
        apart = squared_error(*said).mean(dim=1)
        return apart.detach() if self.detach else apart
