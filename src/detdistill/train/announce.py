"""What a run says of itself: before its first step, and how good it has become."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator

from detdistill import __version__
from detdistill.detectors import parameter_count
from detdistill.methods import combine
from detdistill.train.assembly import Assembly
from detdistill.train.experiment import Experiment


def announcement(
    experiment: Experiment, assembly: Assembly, ranks: Accelerator, folder: Path
) -> list[str]:
    """A line for each part: machine, data, student, teacher, methods, optimizer, folder."""
    size = _size(parameter_count(assembly.student))
    budget = f"{experiment.steps} steps of {experiment.batch_size} images"
    return [
        f"detdistill {__version__}, torch {torch.__version__}, {_machine(experiment, ranks)}",
        *_data(experiment, assembly),
        f"student {experiment.student}: {size}, {assembly.origin}",
        *_teaching(experiment, assembly),
        f"{budget}, {_optimizer(experiment)}",
        *_endless_warm_up(experiment),
        f"run folder {folder}",
    ]


def accuracy(metrics: Mapping[str, float], *names: str) -> str:
    """`AP 12.34, AP50 20.00` in percent; a dash where there is nothing to be found."""
    numbers = ((name, metrics[name]) for name in names)
    return ", ".join(
        f"{name} -" if number < 0 else f"{name} {100 * number:.2f}" for name, number in numbers
    )


def _machine(experiment: Experiment, ranks: Accelerator) -> str:
    threads = f" ({torch.get_num_threads()} threads)" if ranks.device.type == "cpu" else ""
    processes = f", {ranks.num_processes} processes" if ranks.num_processes > 1 else ""
    return f"{ranks.device}{threads}, {experiment.precision}{processes}"


def _data(experiment: Experiment, assembly: Assembly) -> list[str]:
    """How much there is, and what the data sets note, such as annotations that were left out."""
    images, classes = len(assembly.data), len(assembly.data.classes)
    splits = {"train": assembly.data, "tune": assembly.tune, "test": assembly.test}
    remarks = [
        f"note: {split} data: {remark}"
        for split, dataset in splits.items()
        if dataset is not None
        for remark in dataset.notes
    ]
    return [
        f"data {experiment.data}: {images} training images, {classes} classes{_scaled(experiment)}",
        *remarks,
    ]


def _scaled(experiment: Experiment) -> str:
    if experiment.letterbox:
        return f", in squares of {experiment.letterbox}"
    return ", scaled to at most {} x {}".format(*experiment.resize) if experiment.resize else ""


def _teaching(experiment: Experiment, assembly: Assembly) -> list[str]:
    if assembly.teacher is None:
        unused = f"; {experiment.teacher} is not used" if experiment.teacher else ""
        return [f"no method, so no teacher{unused}"]
    size = _size(assembly.teacher.parameters)
    return [
        f"teacher {experiment.teacher}: {size}, frozen{_scale(experiment)}",
        *(assembly.classes.in_words() if assembly.classes else ()),
        *(f"method {name}: {method.extra_repr()}" for name, method in assembly.methods.items()),
        *(f"note: {reason}" for reason in combine.conflicts(assembly.methods)),
    ]


def _scale(experiment: Experiment) -> str:
    factor = experiment.teacher_scale
    return f", sees pictures {factor:g} times as large" if factor else ""


def _optimizer(experiment: Experiment) -> str:
    settings = experiment.optimizer
    warmup = settings.warm_up(experiment.steps)
    average = f", averaged with {settings.ema}" if settings.ema else ""
    return (
        f"{settings.name} lr {settings.lr:g}, {settings.schedule} after {warmup} "
        f"warm-up steps, decay {settings.weight_decay:g}, clip {settings.clip}{average}"
    )


def _endless_warm_up(experiment: Experiment) -> list[str]:
    warmup, steps = experiment.optimizer.warm_up(experiment.steps), experiment.steps
    if warmup < steps:
        return []
    return [
        f"note: the learning rate rises to the end: optimizer.warmup_steps is {warmup} of {steps}"
    ]


def _size(parameters: int) -> str:
    return f"{parameters:,} parameters"
