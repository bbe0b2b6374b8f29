"""FGFI: imitate the neck near the objects, where anchors overlap them nearly as well as the best.

The region is wider than the positives and follows the objects' shape.

Paper: Wang et al., "Distilling Object Detectors with Fine-grained Feature Imitation", CVPR 2019
    (arXiv 1906.03609).
Reads: the necks, the student's anchors, the objects.
Differs: `version="pyramid"` is DeFeat's: an object counts on the level of its size alone, and the
    loss is a mean over channels and levels. `"authors"` is the authors', which has one level: here
    all levels are one, boxes end a pixel later, and channels are summed. A batch without objects
    gives 0 (the authors' code: not a number, `floor=0`). An adapter exists only where widths
    differ (released: always, of size 3: `adapter="conv3"`). LD's version is
    `regions --regions.region fine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from detdistill import losses, masks
from detdistill.levels import Levels, cells_of
from detdistill.methods.method import Method
from detdistill.methods.parts.necks import adapted
from detdistill.methods.parts.pair import Adapter, adapters, needs_anchors, same_strides
from detdistill.structures import Spec, Step


class FGFI(Method):
    """Half the mean squared difference of the necks over the cells near the objects."""

    families: ClassVar[tuple[str, ...]] = ("dense", "region")
    pulls: ClassVar[str] = "neck"
    citation: ClassVar[str] = """@inproceedings{wang2019fgfi,
  title = {Distilling Object Detectors with Fine-grained Feature Imitation},
  author = {Wang, Tao and Yuan, Li and Zhang, Xiaopeng and Feng, Jiashi},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2019},
}"""

    weight: float | None = None
    """None for the released one: 3 in the pyramid, 0.01 in the authors' version."""
    version: Literal["pyramid", "authors"] = "pyramid"
    """How the region and the mean are made."""
    ratio: float = 0.5
    """Overlap of an anchor from which it counts, as a share of the best anchor's."""
    start: int = 0
    """Steps at the beginning without this loss; the authors' code: 400."""
    floor: float = 1e-6
    """Least divisor."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides, and anchors."""
        same_strides("fgfi", teacher, student)
        needs_anchors("fgfi", student)
        self.adapters = adapters("fgfi", self.adapter, teacher, student)
        published = 3.0 if self.version == "pyramid" else 0.01
        self.scale = published if self.weight is None else self.weight

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`near`, summed or averaged over the levels."""
        sums, sizes = [], []
        for (student, teacher), cells in zip(
            adapted(self.adapters, step), self.cells(step), strict=True
        ):
            error = losses.squared_error(student, teacher).sum(dim=1)
            sums.append((error * cells).sum())
            sizes.append(step.world_mean(cells.to(error).sum()))
        total, size = torch.stack(sums), torch.stack(sizes)
        if self.version == "authors":
            mean = total.sum() / (2 * size.sum()).clamp(min=self.floor)
        else:
            channels = step.teacher.neck[0].shape[1]
            mean = (total / (2 * channels * size).clamp(min=self.floor)).mean()
        return {"near": self.scale * (step.index >= self.start) * mean}

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """Which cells are `near` an object."""
        return {"near": self.cells(step)}

    def cells(self, step: Step) -> Levels:
        """(B, H, W) bool per level, the cells near an object."""
        near = masks.fine_grained(
            step.student.dense.priors,
            step.truth,
            ratio=self.ratio,
            scope="own" if self.version == "pyramid" else "image",
            legacy=self.version == "authors",
        )
        return cells_of(near, step.student.neck)
