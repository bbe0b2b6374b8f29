"""The trained module: one batch in, a flat dict of losses out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from detdistill.classes import ClassMatch
from detdistill.detectors import Detector, folded
from detdistill.levels import Levels
from detdistill.methods import Method, combine
from detdistill.structures import (
    EVERYTHING,
    AnyHead,
    Batch,
    DetectorOutput,
    Reads,
    Spec,
    Step,
)
from detdistill.train.boundary import handed_over, way_in
from detdistill.train.common_classes import CommonClasses
from detdistill.train.frozen import Frozen
from detdistill.train.other_scale import OtherScale
from detdistill.train.seeds import derived

Losses = dict[str, Tensor]
"""`task/<name>` for the student's own losses, `<method>/<term>` for distillation."""

TASK = "task"


class TrainStep(nn.Module):
    """Student, methods and teacher as one module, so that whoever wraps it sees every parameter.

    Which losses come out is fixed by the configuration, not by the batch. The teacher is run only
    as far as the methods read it, and not at all without methods. Losses and distillation are
    computed in float32, whatever the detectors, and layers of theirs that methods enter, are
    computed in.

    Args:
        student: the detector to be trained.
        teacher: the detector to learn from; it is frozen. Not used without methods.
        methods: by the name that their losses carry. Their `setup` is called here.
        classes: the student's among the teacher's; None if class k of one is class k of the other.
        teacher_scale: how many times larger than the student the teacher sees the pictures.
        seed: what the methods' own parameters start from; the global random state stays as it is.
        fold: run the teacher with its BatchNorms folded into its convolutions; see `folded`.

    Raises:
        UnsuitablePairError: a method cannot work on this teacher and student.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Detector | None = None,
        methods: Mapping[str, Method] | None = None,
        *,
        classes: ClassMatch | None = None,
        teacher_scale: float = 1.0,
        seed: int = 0,
        fold: bool = False,
    ) -> None:
        super().__init__()
        self.student = student
        self.methods = nn.ModuleDict(methods)
        self.teacher: Frozen | None = None
        self.common: CommonClasses | None = None
        self.scale: OtherScale | None = None
        self.reads = Reads()
        if methods:
            if teacher is None:
                raise ValueError("methods need a teacher")
            self.teacher = Frozen(folded(teacher) if fold else teacher)
            if classes is not None and not classes.is_by_number:
                self.common = CommonClasses(classes)
            if teacher_scale != 1:
                self.scale = OtherScale(teacher_scale, teacher.spec, student.spec)
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(derived(seed, "methods"))
                self.reads = self._set_up(methods, teacher.spec, student.spec)

    def forward(
        self,
        batch: Batch,
        index: int = 0,
        progress: float = 0.0,
        said: DetectorOutput | None = None,
    ) -> Losses:
        """All losses of a batch.

        Args:
            batch: on the module's device.
            index: number of the optimizer step.
            progress: share of the training that is done, 0 to 1.
            said: what `ask` answers for the batch, where that is known.
        """
        truth = batch.truth
        if self.teacher and said is None:  # while nothing of the student's is kept for its gradient
            said = self.ask(batch)
        output = self.student(batch.images, truth.sizes, self.reads | EVERYTHING)
        with torch.autocast(batch.images.device.type, enabled=False):
            output = handed_over(output)
            losses, targets = self.student.criterion(output, truth, world_mean)
        named = {f"{TASK}/{name}": loss for name, loss in losses.items()}
        if self.teacher is None:
            return named
        taught = self.taught(batch, output.neck, said)
        heads = (cast("AnyHead", self.student.head), self.teacher.head)
        student_head, teacher_head = (way_in(head, batch.images.device.type) for head in heads)
        with torch.autocast(batch.images.device.type, enabled=False):
            step = Step(
                truth=truth,
                student=output,
                teacher=taught,
                targets=targets,
                student_head=student_head,
                teacher_head=teacher_head,
                index=index,
                progress=progress,
                world_mean=world_mean,
            )
            return named | self._distil(self.common(step) if self.common else step)

    def ask(self, batch: Batch, reads: Reads | None = None) -> DetectorOutput:
        """What the teacher says of a batch at its own scale.

        Args:
            batch: on the module's device.
            reads: what of it is to be there; what the methods read if None.
        """
        if self.teacher is None:
            raise LookupError("without methods, the teacher is not held")
        images, sizes = batch.images, batch.truth.sizes
        if self.scale:
            images, sizes = self.scale.pictures(images, sizes)
        output: DetectorOutput = self.teacher(images, sizes, reads or self.reads)
        return output

    def taught(
        self, batch: Batch, neck: Levels, said: DetectorOutput | None = None
    ) -> DetectorOutput:
        """What the teacher says of a batch, for a student whose neck has these maps."""
        output = handed_over(said or self.ask(batch))
        return self.scale.output(output, neck) if self.scale else output

    def seen(self, teacher: Spec, student: Spec) -> tuple[Spec, Spec]:
        """What is known of the two detectors, as methods see them."""
        if self.scale:
            teacher = self.scale.spec
        if self.common:
            teacher, student = map(self.common.spec, (teacher, student))
        return teacher, student

    def _set_up(self, methods: Mapping[str, Method], teacher: Spec, student: Spec) -> Reads:
        """Fits the methods to the two detectors as they will see them; returns what they read."""
        reads = combine.setup(methods, *self.seen(teacher, student))
        if self.scale:
            self.scale.check(methods)
        return reads

    def _distil(self, step: Step) -> Losses:
        return {
            f"{name}/{term}": loss
            for name, method in self.methods.items()
            for term, loss in method(step).items()
        }


def world_mean(value: Tensor) -> Tensor:
    """The mean of a tensor over ranks, without gradient."""
    value = value.detach()
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
