"""A teacher that sees the pictures larger or smaller, and what it says in the student's geometry.

Every level of the student's neck gets the level of the teacher's whose cells cover the most similar
part of the picture: at factor 2 the level of stride 16 stands for the student's of stride 8. Their
cells lie on each other then, and both levels look for objects of one size in the picture (Qi et
al., "Multi-Scale Aligned Distillation for Low-Resolution Detection", CVPR 2021, pair levels so).
A level without such a counterpart, at factor 2 the student's coarsest, gets the nearest one. Maps
are brought to the student's sizes bilinearly.

Predictions are handed over where no map has to be resized for it: those of query detectors always,
those of one-stage detectors where every stride has its counterpart. Methods that run the teacher's
head again, from features or from boxes, or compare backbones are refused: at another scale, a head
finds an object on another level than it would by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from detdistill.boxes import DistanceCoder
from detdistill.levels import Levels
from detdistill.losses import resized
from detdistill.methods import Method, UnsuitablePairError
from detdistill.structures import (
    DensePredictions,
    DetectorOutput,
    Predictions,
    QueryPredictions,
    Reads,
    Spec,
)


class OtherScale:
    """The pictures for a teacher at another scale, and its output for the student.

    Args:
        factor: how many times larger the teacher sees the pictures.
        teacher: its facts.
        student: the student's, whose strides it is given.
    """

    def __init__(self, factor: float, teacher: Spec, student: Spec) -> None:
        self.factor = factor
        self.seen = tuple(stride / factor for stride in teacher.strides)
        self.strides = student.strides
        self.levels = tuple(map(self._counterpart, student.strides))
        self.family = teacher.family
        self.spec = replace(teacher, strides=student.strides)

    def _counterpart(self, stride: int) -> int:
        """The teacher's level for the student's of a stride."""
        apart = [abs(math.log(seen / stride)) for seen in self.seen]
        return apart.index(min(apart))

    def check(self, methods: Mapping[str, Method]) -> None:
        """Refuses what cannot be brought into the student's geometry.

        Raises:
            UnsuitablePairError: a method reads it.
        """
        for name, method in methods.items():
            if part := self._beyond_reach(method.reads):
                raise UnsuitablePairError(
                    f"{name} reads the teacher's {part}, which a teacher_scale of {self.factor:g} "
                    "does not bring into the student's geometry: leave out teacher_scale, or "
                    "choose a method that reads only the neck, such as pkd."
                )

    def _beyond_reach(self, reads: Reads) -> str | None:
        """What of it cannot be handed over, in words."""
        if reads.towers:
            return "head towers"
        if reads.encoder:
            return "encoder"
        if reads.backbone:
            return "backbone"
        if reads.head:
            return "head"
        return "predictions" if reads.predictions and not self.has_predictions else None

    @property
    def has_predictions(self) -> bool:
        """Whether predictions can be handed over without resizing a map."""
        is_exact = tuple(self.seen[level] for level in self.levels) == self.strides
        return self.family == "query" or (self.family == "dense" and is_exact)

    def pictures(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) images and their sizes (B, 2) without padding, as the teacher sees them."""
        scaled = F.interpolate(
            images.float(), scale_factor=self.factor, mode="bilinear", antialias=self.factor < 1
        )
        return scaled, (sizes * self.factor).round().to(sizes.dtype)

    def output(self, teacher: DetectorOutput, neck: Levels) -> DetectorOutput:
        """What the teacher says, for a student whose neck has these maps."""
        pairs = zip(self._chosen(teacher.neck), neck, strict=True) if teacher.neck else ()
        return DetectorOutput(
            neck=tuple(resized(theirs, mine) for theirs, mine in pairs),
            predictions=self._predictions(teacher.predictions),
        )

    def _predictions(self, said: Predictions | None) -> Predictions | None:
        if isinstance(said, QueryPredictions):
            return replace(said, boxes=tuple(stage / self.factor for stage in said.boxes))
        return self._dense(said) if isinstance(said, DensePredictions) else None

    def _dense(self, said: DensePredictions) -> DensePredictions:
        """Numbers of boxes are in strides or in sizes of anchors, but for FCOS's, in pixels."""
        unit = self.factor if isinstance(said.coder, DistanceCoder) else 1.0
        return DensePredictions(
            logits=self._chosen(said.logits),
            boxes=tuple(level / unit for level in self._chosen(said.boxes)),
            quality=said.quality and self._chosen(said.quality),
            priors=tuple(level / self.factor for level in self._chosen(said.priors)),
            strides=self.strides,
            coder=said.coder,
        )

    def _chosen(self, levels: Levels) -> Levels:
        return tuple(levels[level] for level in self.levels)
