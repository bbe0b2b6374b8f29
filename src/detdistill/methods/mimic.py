"""Mimic: imitate the neck in the regions where a detector looks for objects.

What is pooled from the student's neck in each proposal should be what is pooled from the teacher's.

Paper: Li, Jin and Yan, "Mimicking Very Efficient Network for Object Detection", CVPR 2017.
Reads: the necks; the proposals of a two-stage detector, or the boxes of which another is surest.
Differs: written from the paper, without comparison with released numbers. The paper has one map and
    the student's own proposals; here each region is pooled from the level of its size, and the
    teacher's proposals are the default. A layer between the two exists only where widths differ
    (paper: always). One-stage and query detectors, which have no proposals, are our reading, as
    are number of regions, their cells and the weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from detdistill import boxes, instances, losses
from detdistill.levels import Levels
from detdistill.methods.method import Method
from detdistill.methods.parts.pair import Adapter, layer, same_strides
from detdistill.methods.parts.proposals import surest
from detdistill.structures import (
    Reads,
    RegionPredictions,
    Spec,
    Step,
)


class Mimic(Method):
    """Half the mean squared difference of what both necks hold of the same regions."""

    pulls: ClassVar[str] = "neck"
    selects: ClassVar[bool] = True
    citation: ClassVar[str] = """@inproceedings{li2017mimic,
  title = {Mimicking Very Efficient Network for Object Detection},
  author = {Li, Quanquan and Jin, Shengying and Yan, Junjie},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2017},
}"""

    weight: float = 3.0
    """Of the mean over the regions of all images."""
    regions: Literal["teacher", "student", "objects"] = "teacher"
    """Whose proposals the regions are, or the objects themselves."""
    count: int = 64
    """Regions of each image at most, the surest."""
    overlap: float = 0.7
    """IoU from which boxes of one-stage and query detectors suppress each other."""
    size: int = 7
    """Cells per side of a region."""
    adapter: Adapter = "auto"
    """Layer between what the student holds of a region and the comparison."""

    @property
    def reads(self) -> Reads:
        """The teacher's predictions, if its proposals are taken."""
        return Reads(predictions=self.regions == "teacher")

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides."""
        same_strides("mimic", teacher, student)
        self.adapt = layer("mimic", self.adapter, teacher.channels, student.channels)
        self.strides = student.strides

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`region`."""
        found, valid = self.chosen(step)
        error = losses.precise(self.apart(step, found)).square().mean(dim=(1, 2, 3))
        mean = losses.half_mean(error, valid.flatten(), step.world_mean)
        return {"region": self.weight * mean}

    def apart(self, step: Step, found: Tensor) -> Tensor:
        """How far apart what both necks hold of regions (B, M, 4) lies: (B·M, C, size, size)."""
        necks = [tuple(map(losses.precise, output.neck)) for output in (step.student, step.teacher)]
        if isinstance(self.adapt, nn.Identity):  # what is pooled once is the difference itself
            return self.pooled(tuple(map(torch.sub, *necks)), found)
        student, teacher = (self.pooled(neck, found) for neck in necks)
        return self.adapt(student) - teacher

    def pooled(self, neck: Levels, found: Tensor) -> Tensor:
        """What a neck holds of regions (B, M, 4): (B·M, C, size, size)."""
        return instances.pooled(neck, self.strides, found, self.size)

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """The cells that lie in the `regions`."""
        found, valid = self.chosen(step)
        return {"regions": instances.covered(step.student.neck, self.strides, found, valid)}

    @torch.no_grad()
    def chosen(self, step: Step) -> tuple[Tensor, Tensor]:
        """The regions (B, M, 4), and which of them are real (B, M)."""
        if self.regions == "objects":
            found, valid = step.truth.boxes, step.truth.valid
        else:
            output = step.teacher if self.regions == "teacher" else step.student
            if not isinstance(output.predictions, RegionPredictions):
                return surest(output, step.truth.sizes, self.count, self.overlap)
            proposals = output.predictions.proposals
            found, valid = proposals.boxes[:, : self.count], proposals.valid[:, : self.count]
        found = boxes.clipped(found, step.truth.sizes)
        return found, valid & (boxes.area(found) > 0)
