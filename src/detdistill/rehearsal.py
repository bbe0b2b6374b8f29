"""Tries a recipe where its data, its teacher or its first weights are not at hand.

What is missing is made up, of the right size: so all that can be told before hours are spent is how
shapes match and whether losses arrive, which is what a rehearsal is for.
"""

from __future__ import annotations

from dataclasses import replace

from detdistill import data, detectors
from detdistill.data import Dataset
from detdistill.data.made_up import MadeUp
from detdistill.detectors import Detector
from detdistill.interop import checkpoint
from detdistill.recipes import Recipe
from detdistill.train import start
from detdistill.train.assembly import (
    Assembly,
    Original,
    augmenter,
    check_classes,
    parse_methods,
    step_of,
)
from detdistill.train.experiment import Experiment, check, sizes

PLACEHOLDER = "coco:PATH"
"""What recipes for data on disk say, until somebody says where it is."""
PICTURES = 2
"""In a rehearsed step: as few as show what there is to see."""
SIZE = (800, 1333)
"""Of made-up pictures, if the experiment does not resize or letterbox them."""


def is_needed(experiment: Experiment, recipe: Recipe) -> bool:
    """Whether nobody has said where the data of a recipe is, or its teacher."""
    lacks_teacher = experiment.teacher is None and recipe.paper.teacher is not None
    return _is_noise(experiment) or (bool(experiment.methods) and lacks_teacher)


def shortened(experiment: Experiment) -> Experiment:
    """The same with few pictures in a step."""
    return replace(experiment, batch_size=PICTURES, accumulate=1)


def assembly(experiment: Experiment, recipe: Recipe) -> Assembly:
    """All parts of a training; made-up ones where there are none.

    Raises:
        UserError: the experiment could not be trained if everything was there.
    """
    check(replace(experiment, teacher=experiment.teacher or recipe.paper.teacher))
    methods = parse_methods(experiment)
    found = checkpoint.load(experiment.teacher) if experiment.teacher and methods else None
    dataset = _data(experiment, recipe, found)
    student, origin = start.student(experiment, tuple(dataset.classes), None)
    if not _is_noise(experiment):
        check_classes(experiment.student, student, dataset)
    teacher = found
    if methods and found is None:
        teacher = detectors.build(str(recipe.paper.teacher), dataset.classes)
    return Assembly(
        data=dataset,
        change=augmenter(experiment),
        tune=None,
        test=dataset,
        student=student,
        origin=origin,
        teacher=None if teacher is None else Original.of(teacher),
        classes=None,  # whichever of the two is made up has the other's
        methods=methods,
        step=step_of(experiment, student, teacher=teacher, methods=methods),
    )


def made_up(experiment: Experiment, recipe: Recipe) -> tuple[str, ...]:
    """What is not as it will be, a sentence each."""
    said = []
    if _is_noise(experiment):
        height, width = _size(experiment)
        said.append(
            f"Data: noise, {height} x {width}, with boxes at random of {recipe.classes} classes; "
            "--data names the real one."
        )
    if experiment.methods and experiment.teacher is None:
        name = recipe.paper.teacher
        said.append(f"Teacher: a {name} that has learnt nothing; --teacher names a real one.")
    if experiment.pretrained:
        said.append(f"Pretrained weights ({experiment.pretrained}): random ones.")
    return (*said, f"Batch: {experiment.batch_size} pictures.")


def _is_noise(experiment: Experiment) -> bool:
    """Whether its pictures have to be made up."""
    return experiment.data == PLACEHOLDER


def _size(experiment: Experiment) -> tuple[int, int]:
    """Of made-up pictures."""
    height, width = sizes(experiment)["resize"] or SIZE
    return height, width


def _data(experiment: Experiment, recipe: Recipe, teacher: Detector | None) -> Dataset:
    """What the recipe names, or noise of the teacher's classes, or of as many as there will be."""
    if not _is_noise(experiment):
        skippable = experiment.skippable
        return data.open(experiment.data, "train", experiment.images, skippable=skippable)
    numbered = (f"class {number}" for number in range(1, (recipe.classes or 1) + 1))
    return MadeUp(
        classes=tuple(teacher.spec.classes if teacher else numbered),
        size=_size(experiment),
        length=experiment.batch_size,
    )
