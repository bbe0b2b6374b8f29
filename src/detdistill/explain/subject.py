"""What figures are made of: detectors by the part they play, test pictures, detections, steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, cast

from torch import Tensor
from torch.utils import _pytree as pytree

from detdistill import data
from detdistill.data import Dataset, Resize
from detdistill.data.folder import SKIPPABLE
from detdistill.data.transforms import Resized
from detdistill.detectors import Detector
from detdistill.device import best_device
from detdistill.errors import UserError
from detdistill.evaluate import predict
from detdistill.explain.figure import FigureUnavailableError
from detdistill.explain.roles import ALONE, TEACHER, Cast, Part
from detdistill.interop import checkpoint as checkpoints
from detdistill.methods import Method
from detdistill.report.runs import Run
from detdistill.show.picks import Pick, most_different
from detdistill.structures import EVERYTHING, AnyHead, Batch, Reads, Spec, Step
from detdistill.train import assembly, checkpoint
from detdistill.train import experiment as experiments
from detdistill.train.folder import RunFolder
from detdistill.train.step import TrainStep

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class View:
    """One test picture as methods see it in a training, with history up to the student's neck."""

    position: int
    """Of the picture in the data set."""
    batch: Batch
    losses: Mapping[str, Tensor]
    """The student's own, by name."""
    step: Step


class Subject:
    """Everything is read or computed when a figure first asks for it, and kept.

    Args:
        roles: who plays which part.
        split: the part of the data whose pictures are shown and measured.
        images: how many pictures are shown where not all are measured.
    """

    def __init__(self, roles: Cast, *, split: str = "test", images: int = 4) -> None:
        self.run: Run = roles.run
        self.parts: Mapping[str, Part] = roles.parts
        self.rivals: Mapping[str, Part] = roles.rivals
        """Other detectors that could teach."""
        self._no_teacher = roles.no_teacher
        self._split, self._images = split, images
        self.detector = cache(self._detector)
        """The detector called so, in evaluation mode, ready for gradients."""
        self.detections = cache(self._detections)
        """COCO results of the detector called so, on all pictures of the split."""
        self.train_step = cache(self._train_step)
        """The step that trains the student called so; what it learned comes with `training`."""
        self.training = cache(self._training)
        """The step of the training of the student called so, with all that it learned."""

    @property
    def labels(self) -> tuple[str, ...]:
        """All detectors: the teacher, the student alone, distilled students, as far as there."""
        return tuple(self.parts)

    @property
    def teacher(self) -> str:
        """The teacher's label.

        Raises:
            FigureUnavailableError: there is no teacher.
        """
        if TEACHER not in self.parts:
            raise FigureUnavailableError(self._no_teacher)
        return TEACHER

    @property
    def alone(self) -> str:
        """The label of the student alone.

        Raises:
            FigureUnavailableError: no run is the student alone.
        """
        if ALONE not in self.parts:
            raise FigureUnavailableError(
                "No run of the student alone was named: add it, or use --alone."
            )
        return ALONE

    @property
    def distilled(self) -> tuple[str, ...]:
        """The labels of the distilled students.

        Raises:
            FigureUnavailableError: there are none.
        """
        found = tuple(label for label in self.parts if label not in {TEACHER, ALONE})
        if not found:
            raise FigureUnavailableError(f"{self.run.folder} was trained without methods.")
        return found

    @property
    def students(self) -> tuple[str, ...]:
        """The student alone and distilled, as far as there."""
        return tuple(label for label in self.parts if label != TEACHER)

    @property
    def test(self) -> tuple[str, str, int | None]:
        """Data, split and number of pictures; None where the run was not tested on the split."""
        name, split, images = self.run.test
        return (name, split, images) if split == self._split else (name, self._split, None)

    @cached_property
    def dataset(self) -> Dataset:
        """All pictures of the split, as large as the detectors saw them in the training."""
        name, split, images = self.test
        experiment = self.run.experiment
        resize = Resize.of(experiment.get("resize"), experiment.get("letterbox"))
        if images is not None:
            tested = data.tested(name, split, images)
            return Resized(tested, resize) if resize else tested
        skippable = experiment.get("skippable", SKIPPABLE)
        return data.open(name, split, resize=resize, skippable=skippable, decode=True)

    @cached_property
    def truth(self) -> Json:
        """The objects in these pictures, in COCO's format."""
        return self.dataset.ground_truth()

    def first(self, most: int) -> range:
        """Places of the first pictures, to be measured."""
        return range(min(most, len(self.dataset)))

    @cached_property
    def picks(self) -> list[Pick]:
        """The pictures to be shown: those on which the detectors differ most.

        Raises:
            FigureUnavailableError: a detector cannot be asked about the data.
            UserError: the detections of a run know classes that the data does not.
        """
        found = {label: self.detections(label) for label in self.parts}
        try:
            return most_different(self.truth, found, self._images)
        except ValueError as error:
            raise UserError(
                f"The detections of {self.run.folder}, or of a run beside it, know classes that "
                f"{self.test[0]} does not ({error}): evaluate the runs again."
            ) from error

    @cached_property
    def shown(self) -> list[int]:
        """Places of the pictures to be shown; the first ones where the detectors do not differ."""
        try:
            positions = [pick.position for pick in self.picks]
        except FigureUnavailableError:
            positions = []
        return positions or list(self.first(self._images))

    def methods(self, label: str) -> dict[str, Method]:
        """The methods of a distilled student by name, with the layers they trained.

        Raises:
            FigureUnavailableError: there is no teacher, or what the methods learned is gone.
        """
        return dict(self.training(label).methods.items())  # type: ignore[arg-type]

    def reads(self, label: str) -> Reads:
        """What these methods read.

        Raises:
            FigureUnavailableError: there is no teacher.
        """
        return self.train_step(label).reads

    def specs(self, student: str) -> tuple[Spec, Spec]:
        """What is known of the teacher and a student, as methods see them.

        Raises:
            FigureUnavailableError: there is no teacher.
        """
        step = self.train_step(student)
        return step.seen(self.detector(self.teacher).spec, self.detector(student).spec)

    def views(
        self, student: str, reads: Reads = EVERYTHING, positions: Iterable[int] | None = None
    ) -> Iterator[View]:
        """Pictures as a method sees them that teaches `student`.

        Args:
            student: label of a student.
            reads: what of both detectors is to be there.
            positions: places of the pictures; those that are shown if None.

        Raises:
            FigureUnavailableError: there is no teacher.
        """
        for position in self.shown if positions is None else positions:
            yield self._view(student, position, reads | EVERYTHING)

    def batch(self, *positions: int) -> Batch:
        """Pictures and their truth, where the detectors are."""
        batch = data.collate([self.dataset[position] for position in positions])
        device = best_device()
        moved: Batch = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), batch)
        return moved

    def _view(self, label: str, position: int, reads: Reads) -> View:
        train, student, batch = self.train_step(label), self.detector(label), self.batch(position)
        output = student(batch.images, batch.truth.sizes, reads)
        losses, targets = student.criterion(output, batch.truth)
        step = Step(
            truth=batch.truth,
            student=output,
            teacher=train.taught(batch, output.neck, train.ask(batch, reads)),
            targets=targets,
            student_head=cast("AnyHead", student.head),
            teacher_head=cast("AnyHead", self.detector(self.teacher).head),
            index=self.run.steps // 2,  # some methods grow at the start, some fade towards the end
            progress=0.5,
        )
        seen = train.common(step) if train.common else step
        return View(position=position, batch=batch, losses=losses, step=seen)

    def _detector(self, label: str) -> Detector:
        part = self.rivals.get(label) or self.parts[label]
        return checkpoints.load(part.checkpoint).to(best_device()).eval()

    def _detections(self, label: str) -> list[Json]:
        run = self.parts[label].run
        found = run.detections() if run and run.test == self.test else []
        if found:
            return found
        detector, dataset = self.detector(label), self.dataset
        try:
            return predict(detector, dataset)
        except UserError as refusal:
            raise FigureUnavailableError(f"The {label} cannot be asked. {refusal}") from refusal

    def _train_step(self, label: str) -> TrainStep:
        """Built as for the training; for the student alone as for that of the explained run."""
        teacher = self.detector(self.teacher)
        taught = label if label in self.distilled else self.distilled[0]
        experiment = experiments.load(RunFolder(self.parts[taught].checkpoint).experiment)
        step = assembly.step_of(
            replace(experiment, fold_teacher=False),
            self.detector(label),
            teacher=teacher,
            methods=assembly.parse_methods(experiment),
            common=assembly.common_classes(experiment, teacher, self.dataset),
        )
        return step.to(best_device()).eval()

    def _training(self, label: str) -> TrainStep:
        """The train step; the layers of the methods are from the training's last checkpoint."""
        step, folder = self.train_step(label), RunFolder(self.parts[label].checkpoint)
        if not step.methods.state_dict():
            return step
        state = checkpoint.load(folder.last)
        if state is None:
            raise FigureUnavailableError(
                f"What the methods of {folder.path} learned is gone: there is no {folder.last}."
            )
        step.methods.load_state_dict(_within(state["trainer"]["step"], "methods."))
        return step


def _within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a module's part."""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
