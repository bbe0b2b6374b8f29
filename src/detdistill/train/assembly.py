"""Puts together what an experiment names: data, student, teacher, methods, step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from detdistill import classes, data
from detdistill.classes import ClassMatch
from detdistill.data import Augmenter, Dataset, Resize
from detdistill.data.folder import PictureFolder
from detdistill.detectors import AnyArchitecture, Detector, parameter_count
from detdistill.errors import UserError
from detdistill.interop import checkpoint
from detdistill.interop.pretrained import IMAGENET
from detdistill.methods import Method, combine
from detdistill.train import start
from detdistill.train.experiment import Experiment
from detdistill.train.step import TrainStep


@dataclass(frozen=True, kw_only=True)
class Original:
    """What a teacher was when it was loaded.

    The step alone holds the teacher itself, in the form that it runs: beside a folded backbone,
    the one that was loaded would take as much memory again.
    """

    architecture: AnyArchitecture
    parameters: int
    fingerprint: str
    """Says whether two runs had the same teacher."""

    @classmethod
    def of(cls, detector: Detector) -> Self:
        """Of a detector as it was loaded."""
        return cls(
            architecture=detector.architecture,
            parameters=parameter_count(detector),
            fingerprint=checkpoint.fingerprint(detector),
        )


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """Everything that a training consists of, not yet on a device."""

    data: Dataset
    """The training images, in their own size."""
    change: Augmenter
    """What the training makes of them."""
    tune: Dataset | None
    """What is evaluated on during the training; None if nothing is."""
    test: Dataset
    """What is evaluated on at the end."""
    student: Detector
    origin: str
    """Where the student's first weights come from, in words."""
    teacher: Original | None
    """None without methods, too."""
    classes: ClassMatch | None
    """The data's classes among the teacher's; None without a teacher."""
    methods: dict[str, Method]
    step: TrainStep
    """Holds student, teacher and methods."""

    @property
    def teacher_fingerprint(self) -> str | None:
        """Says whether two runs had the same teacher."""
        return None if self.teacher is None else self.teacher.fingerprint


def build(experiment: Experiment) -> Assembly:
    """Builds all parts. What is quick to check is checked first.

    Raises:
        UserError: a name is unknown, a checkpoint, pretrained weights or a folder are missing,
            the student knows other classes than the data or the teacher none of them, or a method
            does not fit the pair.
    """
    methods = parse_methods(experiment)
    teacher = _teacher(experiment) if methods else None
    weights = start.weights_of(experiment)
    dataset = data.open(experiment.data, "train", experiment.images, skippable=experiment.skippable)
    if isinstance(dataset, PictureFolder) and not dataset.objects:
        raise UserError(
            f"The training pictures of {experiment.data} show no object, so there is nothing to "
            "learn. 'detdistill data check' says what is there."
        )
    common = None if teacher is None else common_classes(experiment, teacher, dataset)
    student, origin = start.student(experiment, tuple(dataset.classes), weights)
    check_classes(experiment.student, student, dataset)
    return Assembly(
        data=dataset,
        change=augmenter(experiment),
        tune=open_whole(experiment, "tune") if experiment.validate_every else None,
        test=open_whole(experiment, "test"),
        student=student,
        origin=origin,
        teacher=None if teacher is None else Original.of(teacher),
        classes=common,
        methods=methods,
        step=step_of(experiment, student, teacher=teacher, methods=methods, common=common),
    )


def step_of(
    experiment: Experiment,
    student: Detector,
    *,
    teacher: Detector | None,
    methods: Mapping[str, Method],
    common: ClassMatch | None = None,
) -> TrainStep:
    """The step of an experiment, made of its parts.

    Args:
        experiment: what is trained, and how.
        student: its detector.
        teacher: None without methods.
        methods: by name, not yet set up.
        common: the student's classes among the teacher's; None where both have the same.

    Raises:
        UnsuitablePairError: a method does not fit the pair.
    """
    return TrainStep(
        student,
        teacher,
        methods,
        classes=common,
        teacher_scale=experiment.teacher_scale or 1.0,
        seed=experiment.seed,
        fold=experiment.fold_teacher,
    )


def parse_methods(experiment: Experiment) -> dict[str, Method]:
    """The methods of an experiment, not yet set up; what speaks against them is announced later."""
    return combine.build_all(experiment.methods)


def resolved(experiment: Experiment) -> Experiment:
    """The same experiment with every default spelled out that depends on other settings."""
    parsed = parse_methods(experiment).values()
    settings = (method.settings() for method in parsed)
    methods = dict(zip(experiment.methods, settings, strict=True))
    warmup = experiment.optimizer.warm_up(experiment.steps)
    optimizer = replace(experiment.optimizer, warmup_steps=warmup)
    return replace(experiment, methods=methods, optimizer=optimizer, **start.freezing(experiment))


def checkpoints_of(experiment: Experiment) -> list[str]:
    """The files that an experiment starts from and learns from."""
    student = [experiment.student] if start.is_checkpoint(experiment.student) else []
    named = [file for file in (experiment.pretrained, experiment.teacher) if file]
    return student + [file for file in named if file != IMAGENET]


def augmenter(experiment: Experiment) -> Augmenter:
    """What a training makes of its pictures before it perhaps mirrors them."""
    return Augmenter(resize=_resize(experiment), settings=experiment.augment)


def open_whole(experiment: Experiment, split: str) -> Dataset:
    """What is evaluated on; every picture is decoded before hours are spent on the training."""
    return data.open(
        experiment.data,
        split,
        resize=_resize(experiment),
        skippable=experiment.skippable,
        decode=True,
    )


def common_classes(experiment: Experiment, teacher: Detector, dataset: Dataset) -> ClassMatch:
    """The data's classes among the teacher's.

    Raises:
        UserError: there are none, or `class_map` names one that is not there.
    """
    found = classes.match(teacher.spec.classes, dataset.classes, experiment.class_map)
    if not found.pairs:
        said = classes.other_classes(f"The teacher {experiment.teacher}", found)
        raise UserError(
            f"{said} Say which of its classes stands for which with class_map, or choose a "
            "teacher that knows one of the data's."
        )
    return found


def check_classes(name: str, student: Detector, dataset: Dataset) -> None:
    """Refuses a student that was made for other classes than the data's.

    Raises:
        UserError: it was.
    """
    found = classes.match(student.spec.classes, dataset.classes)
    if student.spec.classes != tuple(dataset.classes):
        said = classes.other_classes(f"The student {name}", found)
        raise UserError(f"{said} Choose a student for these {len(dataset.classes)} classes.")


def _resize(experiment: Experiment) -> Resize | None:
    return Resize.of(experiment.resize, experiment.letterbox)


def _teacher(experiment: Experiment) -> Detector:
    if experiment.teacher is None:
        raise UserError("Distillation needs a teacher: a run folder or a .safetensors file.")
    return checkpoint.load(experiment.teacher)
