"""Where the student's weights start, and which of them stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detdistill import detectors
from detdistill.detectors import Detector
from detdistill.detectors.backbones import Backbone
from detdistill.errors import UserError
from detdistill.interop import checkpoint, pretrained
from detdistill.interop.pretrained import Weights
from detdistill.train.experiment import Experiment
from detdistill.train.seeds import derived


def is_checkpoint(student: str) -> bool:
    """Whether a student is given by its weights; a detector's name goes before a folder's."""
    try:
        detectors.describe(student, ("any",))
    except UserError:
        is_path = "/" in student and "timm/" not in student
        return is_path or student.endswith(".safetensors") or Path(student).is_dir()
    return False


def weights_of(experiment: Experiment) -> Weights | None:
    """The pretrained weights that the experiment names; also finds out whether it can have any.

    Raises:
        UserError: the student's name is unknown, the weights cannot be had, or something would be
            frozen that is random.
    """
    if is_checkpoint(experiment.student):
        if experiment.pretrained is not None:
            raise UserError(
                f"pretrained is for new students, but {experiment.student} has weights already: "
                "leave one of them out."
            )
        return None
    architecture = detectors.describe(experiment.student, ("any",))
    if experiment.pretrained is not None:
        return pretrained.read(experiment.pretrained, architecture.backbone)
    if experiment.frozen_stages or experiment.frozen_norm:
        raise UserError(
            "frozen_stages and frozen_norm would keep random weights as they are: name better ones "
            f"with pretrained, such as {pretrained.IMAGENET}."
        )
    return None


def student(
    experiment: Experiment, classes: tuple[str, ...], weights: Weights | None
) -> tuple[Detector, str]:
    """The student, and in words where its weights come from.

    A new one depends on the experiment's seed and on pretrained weights, and on nothing else.

    Raises:
        UserError: checkpoint or weights do not fit.
    """
    if is_checkpoint(experiment.student):
        detector, origin = checkpoint.load(experiment.student), f"weights of {experiment.student}"
    else:
        detector, origin = _new(experiment, classes, weights)
    detector = _frozen(detector, freezing(experiment))
    return detector, origin + _in_words(detector.architecture.backbone)


def freezing(experiment: Experiment) -> dict[str, Any]:
    """`frozen_stages` and `frozen_norm` as they are meant; None for as the detector has them.

    MMDetection's 1x recipes keep the first stage of pretrained ResNets, and all statistics of
    their norms; other backbones are trained whole.
    """
    chosen = {
        "frozen_stages": experiment.frozen_stages,
        "frozen_norm": experiment.frozen_norm,
    }
    if experiment.pretrained is None or is_checkpoint(experiment.student):
        return chosen
    backbone = detectors.describe(experiment.student, ("any",)).backbone
    is_resnet = backbone.name.startswith(("resnet", "resnext"))
    usual = {"frozen_stages": int(is_resnet), "frozen_norm": is_resnet}
    return {name: usual[name] if value is None else value for name, value in chosen.items()}


def _new(
    experiment: Experiment, classes: tuple[str, ...], weights: Weights | None
) -> tuple[Detector, str]:
    with _seeded(derived(experiment.seed, "student")):
        detector = detectors.build(experiment.student, classes)
    if weights is None:
        return detector, f"random, from seed {experiment.seed}; nothing pretrained"
    left_out = pretrained.fill(detector.backbone, weights)
    without = f" without {', '.join(left_out)}" if left_out else ""
    return detector, f"backbone of {weights.file}{without}, the rest from seed {experiment.seed}"


def _frozen(detector: Detector, settings: Mapping[str, Any]) -> Detector:
    """The same detector, with more or less of its backbone frozen."""
    architecture = detector.architecture
    chosen = {name: value for name, value in settings.items() if value is not None}
    backbone = replace(architecture.backbone, **chosen)
    if backbone == architecture.backbone:
        return detector
    with _seeded(0):
        again = detectors.from_architecture(replace(architecture, backbone=backbone))
    again.load_state_dict(detector.state_dict())
    return again


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from `seed` inside; outside, nothing has been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _in_words(backbone: Backbone) -> str:
    """`; frozen: stem and 1 of its stages, norm statistics`."""
    stages = backbone.frozen_stages
    parts = [f"stem and {stages} of its stages"] if stages else []
    parts += ["norm statistics"] if backbone.frozen_norm else []
    return f"; frozen: {', '.join(parts)}" if parts else ""
