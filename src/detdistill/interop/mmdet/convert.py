"""From a checkpoint file to a detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from detdistill import detectors
from detdistill.detectors import AnyArchitecture, Detector
from detdistill.errors import UserError
from detdistill.interop import unpickle
from detdistill.interop.mmdet import backbones, deformable_detr, dense, faster_rcnn, parts, training
from detdistill.interop.mmdet import config as configs
from detdistill.interop.mmdet.section import Section
from detdistill.interop.transfer import Imported, Rules, transfer

SUPPORTED = "GFL, ATSS, RetinaNet, FCOS, Faster R-CNN and Deformable DETR"
LEFT_OUT = {
    "optimizer": "the optimizer's state",
    "param_schedulers": "the schedules",
    "message_hub": "the training log",
    "ema_state_dict": "the weights beside the averaged ones, which state_dict holds",
    "amp": "the loss scale",
}
"""Entries of a checkpoint that training alone needs."""
WRAPPERS = ("module.", "model.", "architecture.", "student.")
"""What data parallelism and distillers put before names."""
USELESS = {
    "ema_": "copies that a hook of 2.x keeps for averaging",
    "teacher.": "a teacher beside its student",
    "bbox_head.integral.": "constants",
}
"""Beginnings of names of tensors that no detector needs."""


def _as_they_are(weights: Mapping[str, Tensor], _: AnyArchitecture) -> Mapping[str, Tensor]:
    return weights


class Reader(NamedTuple):
    """How detectors of some families are read."""

    describe: Callable[[configs.Config, Section, tuple[str, ...]], AnyArchitecture]
    """From a config, its model and the names of the classes."""
    names: Callable[[Any], Rules]
    """What MMDetection calls the weights of what was described."""
    prepare: Callable[[Mapping[str, Tensor], Any], Mapping[str, Tensor]] = _as_they_are
    """Makes tensors that can be copied as they are."""


DENSE = Reader(dense.architecture, dense.names)
TWO_STAGE = Reader(faster_rcnn.architecture, faster_rcnn.names)
QUERIES = Reader(deformable_detr.architecture, deformable_detr.names, deformable_detr.prepared)
READERS: dict[str, Reader] = {
    **dict.fromkeys(dense.FAMILIES.values(), DENSE),
    "faster_rcnn": TWO_STAGE,
    "deformable_detr": QUERIES,
}
"""By family."""


def load(
    path: Path,
    *,
    config: Path | None = None,
    preset: str | None = None,
    classes: Sequence[str] | None = None,
    partial: bool = False,
) -> Imported:
    """The detector in a checkpoint of MMDetection.

    Args:
        path: a checkpoint, published or in the midst of training, or a plain state dict.
        config: a config file, if the one in the checkpoint is not wanted or not there.
        preset: one of our names, instead of any config.
        classes: their names, if the checkpoint does not know them.
        partial: accept what does not fit.

    Raises:
        UserError: the file is not allowed or damaged, its detector cannot be built here, or its
            weights do not fit.
    """
    if config is not None and preset is not None:
        raise UserError("Say what the checkpoint is with --config or with --preset, not both.")
    checkpoint = unpickle.read(path)
    stored: Mapping[str, Tensor]
    stored, left_out = _weights(checkpoint, path)
    meta = _mapping(checkpoint.get("meta"))
    names = tuple(classes or _classes(meta, path))
    content: configs.Config = {}
    if preset is None:
        content = configs.read_file(config) if config else _config(meta, path)
    detector = detectors.build(preset, names) if preset else _fresh(content, names)
    architecture = detector.architecture
    stored = backbones.prepared(stored, architecture.backbone)
    weights = READERS[architecture.family].prepare(stored, architecture)
    report = transfer(weights, detector, rules(architecture), partial=partial)
    return Imported(
        detector=detector,
        report=replace(report, left_out=left_out, notes=_notes(architecture, content)),
        resize=parts.resize(content),
    )


def describe(config: configs.Config, classes: tuple[str, ...]) -> AnyArchitecture:
    """The detector that a config describes.

    Raises:
        UserError: it cannot be built here; the message names what is in the way.
    """
    model = Section(config["model"], "model")
    if "roi_head" in config["model"]:
        return TWO_STAGE.describe(config, model, classes)
    if model.type == "DeformableDETR":
        return QUERIES.describe(config, model, classes)
    if "bbox_head" not in config["model"]:
        raise model.refusal("type", model.type, SUPPORTED)
    return DENSE.describe(config, model, classes)


def _fresh(config: configs.Config, classes: tuple[str, ...]) -> Detector:
    """The detector that a config describes, not trained."""
    try:
        return detectors.from_architecture(describe(config, classes))
    except UserError:
        raise
    except Exception as error:  # values of wrong types or sizes can raise anything
        raise UserError(
            f"The config describes a model that cannot be built: {type(error).__name__}, {error}."
        ) from error


def rules(architecture: AnyArchitecture) -> Rules:
    """What MMDetection calls a detector's weights."""
    return READERS[architecture.family].names(architecture)


def _notes(architecture: AnyArchitecture, config: configs.Config) -> tuple[str, ...]:
    return tuple(training.differences(architecture.family, config.get("model", {})))


def _weights(checkpoint: Any, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:  # noqa: ANN401
    """The detector's tensors by MMDetection's names, and what was left out, in words."""
    state = _mapping(_mapping(checkpoint).get("state_dict", checkpoint))
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no weights: it has no 'state_dict', nor is it one.")
    tensors = _unwrapped(tensors)
    useless = {
        name: what for name in tensors for start, what in USELESS.items() if name.startswith(start)
    }
    words = [what for key, what in LEFT_OUT.items() if key in checkpoint]
    kept = {name: value for name, value in tensors.items() if name not in useless}
    return kept, (*words, *dict.fromkeys(useless.values()))


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as a bare detector has them."""
    found = dict(tensors)
    for prefix in WRAPPERS:
        if any(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _classes(meta: Mapping[str, Any], path: Path) -> Sequence[str]:
    """3.x keeps them in `dataset_meta`, 2.x beside it."""
    about = _mapping(meta.get("dataset_meta")) or meta
    classes = about.get("classes") or about.get("CLASSES")
    if not isinstance(classes, list | tuple) or not all(isinstance(c, str) for c in classes):
        raise UserError(f"{path} does not know its classes: name them with --classes.")
    return classes


def _mapping(value: object) -> Mapping[Any, Any]:
    """A dictionary; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def _config(meta: Mapping[str, Any], path: Path) -> configs.Config:
    """3.x keeps its text as `cfg`, 2.x as `config`."""
    text = meta.get("cfg") or meta.get("config")
    if not isinstance(text, str):
        raise UserError(
            f"{path} does not hold its config: give the file with --config, or a detector of ours "
            "with --preset."
        )
    config = configs.parse(text, f"the config in {path}")
    if not isinstance(config.get("model"), Mapping):
        raise UserError(f"The config in {path} does not describe a model: give one with --config.")
    return config
