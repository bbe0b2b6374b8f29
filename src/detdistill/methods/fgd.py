"""FGD: imitate objects and background apart, most where the teacher looks, and their relations.

Cells and channels count by the teacher's attention, and an object's cells by its size; a small
trained block adds what each map says as a whole.

Paper: Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022
    (arXiv 2111.11837).
Reads: the necks, the objects.
Differs: weights are those of the released settings (the paper's attention weight is 1e-3). An
    object's area counts one cell more in width and height than the paper says, as released. Boxes
    are scaled with the size of an image before padding (`scale="image"`, as released), which
    stretches them where a batch is padded; `"padded"` puts them where they are. The coarsest level
    of two-stage detectors is left out, as released. The context blocks' masks have no bias, which
    a softmax ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from detdistill import losses, masks
from detdistill.levels import Levels
from detdistill.methods.method import Method
from detdistill.methods.parts.attention import Context, attention
from detdistill.methods.parts.necks import adapted, convolved_levels
from detdistill.methods.parts.pair import (
    Adapter,
    adapters,
    kind_of_head,
    or_published,
    same_strides,
)
from detdistill.structures import Spec, Step

RELEASED = {
    "regions": (5e-5, 2.5e-5, 5e-5, 5e-7, 0.5),
    "distances": (1.6e-3, 8e-4, 8e-4, 8e-6, 0.8),
}
ELSEWHERE = (1e-3, 5e-4, 5e-4, 5e-6, 0.5)
"""Weights and temperature by the kind of the head, in the order of the settings."""


class FGD(Method):
    """Attention-weighted difference of the necks, attention, and global relations."""

    pulls: ClassVar[str] = "neck"
    citation: ClassVar[str] = """@inproceedings{yang2022fgd,
  title = {Focal and Global Knowledge Distillation for Detectors},
  author = {Yang, Zhendong and Li, Zhe and Jiang, Xiaohu and Gong, Yuan and Yuan, Zehuan and
            Zhao, Danpei and Yuan, Chun},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022},
}"""

    foreground_weight: float | None = None
    """Of the objects' cells. None for the released one: 1e-3, FCOS 1.6e-3, two-stage 5e-5."""
    background_weight: float | None = None
    """Of the other cells. None for the released one: 5e-4, FCOS 8e-4, two-stage 2.5e-5."""
    attention_weight: float | None = None
    """Of the difference in attention. None for the released one: 5e-4, FCOS 8e-4, two-stage
    5e-5."""
    relation_weight: float | None = None
    """Of the maps with their context. None for the released one: 5e-6, FCOS 8e-6, two-stage
    5e-7."""
    temperature: float | None = None
    """Of the attention. None for the released one: 0.5, FCOS 0.8."""
    scale: Literal["image", "padded"] = "image"
    """What a map is taken to cover: the image without its padding, as released, or with it."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides."""
        same_strides("fgd", teacher, student)
        given = (
            self.foreground_weight,
            self.background_weight,
            self.attention_weight,
            self.relation_weight,
            self.temperature,
        )
        published = RELEASED.get(kind_of_head(student), ELSEWHERE)
        *self.weights, self.sharpness = or_published(given, published)
        count, width = convolved_levels(student), teacher.channels
        self.adapters = adapters("fgd", self.adapter, teacher, student)[:count]
        self.student_context = nn.ModuleList(Context(width) for _ in range(count))
        self.teacher_context = nn.ModuleList(Context(width) for _ in range(count))
        self.strides = student.strides

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`foreground`, `background`, `attention` and `relation`, each summed over the levels."""
        pairs = adapted(self.adapters, step)
        levels = [
            self.level(i, student, teacher, step) for i, (student, teacher) in enumerate(pairs)
        ]
        return {
            name: weight * torch.stack([level[name] for level in levels]).sum()
            for name, weight in zip(levels[0], self.weights, strict=True)
        }

    def level(self, i: int, student: Tensor, teacher: Tensor, step: Step) -> dict[str, Tensor]:
        """The four terms of one level before their weights, means over the images."""
        student, teacher = losses.precise(student), losses.precise(teacher)
        own, wanted = (attention(maps, self.sharpness) for maps in (student, teacher))
        difference = losses.squared_error(student, teacher) * wanted.channels[..., None, None]
        weighted = difference.sum(dim=1) * wanted.cells
        foreground, background = self.shares(i, step)
        related = losses.squared_error(
            self.student_context[i](student), self.teacher_context[i](teacher)
        )
        apart = [(mine - theirs).abs().sum() for mine, theirs in zip(own, wanted, strict=True)]
        terms = {
            "foreground": (weighted * foreground).sum(),
            "background": (weighted * background).sum(),
            "attention": apart[0] + apart[1],
            "relation": related.sum(),
        }
        return {name: term / len(student) for name, term in terms.items()}

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """Where the teacher looks, and the shares of `objects` and `background`, its factors.

        0 on a level that is left out.
        """
        neck = map(losses.precise, step.teacher.neck)
        shares = [self.shares(i, step) for i in range(len(self.strides))]
        found = {
            "attention": [attention(maps, self.sharpness).cells for maps in neck],
            "objects": [objects for objects, _ in shares],
            "background": [background for _, background in shares],
        }
        count = len(self.adapters)
        return {
            name: tuple(level * (i < count) for i, level in enumerate(levels))
            for name, levels in found.items()
        }

    def shares(self, i: int, step: Step) -> tuple[Tensor, Tensor]:
        """(B, H, W) weights of the objects' cells and of the others."""
        stride = self.strides[i] if self.scale == "padded" else None
        return masks.shares(step.truth, step.student.neck[i], stride)
