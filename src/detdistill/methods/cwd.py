"""CWD: each channel of the neck is a distribution over the image, to be met by the student's.

What counts is where a channel responds, not how strongly.

Paper: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021
    (arXiv 2011.13256), equations 4 and 5.
Reads: the necks.
Differs: written from the paper, without comparison with released numbers. Per level: softmax over
    the cells of each channel at a temperature t, KL(teacher || student) times t^2, averaged over
    channels and images; the levels are added. Temperature 1 and weight 10 are settings for
    detectors' necks, chosen here (the paper's own tuning is for segmentation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from detdistill.losses import kl_divergence
from detdistill.methods.method import Method
from detdistill.methods.parts.necks import adapted, by_level
from detdistill.methods.parts.pair import Adapter, adapters, same_strides
from detdistill.structures import Spec, Step


class CWD(Method):
    """Divergence of each channel's distribution over the cells, summed over the levels."""

    pulls: ClassVar[str] = "neck"
    citation: ClassVar[str] = """@inproceedings{shu2021cwd,
  title = {Channel-wise Knowledge Distillation for Dense Prediction},
  author = {Shu, Changyong and Liu, Yifan and Gao, Jianfei and Yan, Zheng and Shen, Chunhua},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year = {2021},
}"""

    weight: float = 10.0
    """Of every level."""
    temperature: float = 1.0
    """Divides the features; larger takes more of the image into account."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides."""
        same_strides("cwd", teacher, student)
        self.adapters = adapters("cwd", self.adapter, teacher, student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        pairs = adapted(self.adapters, step)
        return by_level(self.weight * self._divergence(*pair).mean() for pair in pairs)

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B, C, H, W) twice -> (B, C)."""
        return kl_divergence(student.flatten(2), teacher.flatten(2), self.temperature)
