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

from detdistill.levels import Levels
from detdistill.losses import precise
from detdistill.methods.method import Method
from detdistill.methods.parts.necks import adapted, by_level, cell_errors
from detdistill.methods.parts.pair import Adapter, adapters, same_predictions
from detdistill.structures import Reads, Spec, Step


class PFI(Method):
    """Squared difference of the necks times that of the class scores, cell by cell."""

    families: ClassVar[tuple[str, ...]] = ("dense",)
    pulls: ClassVar[str] = "neck"
    needs: ClassVar[Reads] = Reads(predictions=True)
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

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("pfi", teacher, student)
        self.adapters = adapters("pfi", self.adapter, teacher, student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        return by_level(level.mean() for level in self.of_images(step))

    def of_images(self, step: Step) -> list[Tensor]:
        """(B,) of each level, with its share of the weight."""
        errors = zip(cell_errors(adapted(self.adapters, step)), self.apart(step), strict=True)
        share = self.weight / len(self.adapters)
        levels = ((apart * error).flatten(1) for error, apart in errors)
        if self.reduction == "norm":
            return [share * cells.norm(dim=1) / cells.numel() for cells in levels]
        return [share * cells.mean(dim=1) for cells in levels]

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """Where the scores are `different`."""
        return {"different": tuple(level.detach() for level in self.apart(step))}

    def apart(self, step: Step) -> Levels:
        """(B, H, W) per level: squared difference of a cell's class scores, their mean."""
        said = [tuple(map(precise, o.dense.logits)) for o in (step.student, step.teacher)]
        if self.scores == "probability":
            said = [tuple(logits.sigmoid() for logits in levels) for levels in said]
        apart = cell_errors(zip(*said, strict=True))
        return tuple(level.detach() for level in apart) if self.detach else apart
