"""Other frameworks' checkpoints by the framework's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from detdistill.errors import UserError
from detdistill.interop import mmdet, torchvision
from detdistill.interop.transfer import Imported

Source = Literal["mmdet", "torchvision"]
COCO = "coco"
"""Stands for the names of COCO's 80 classes."""


def load(
    source: Source,
    path: Path,
    *,
    preset: str | None = None,
    config: Path | None = None,
    classes: Sequence[str] | None = None,
    norm_eps: float | None = None,
    partial: bool = False,
) -> Imported:
    """The detector in a file of another framework.

    Args:
        source: whose file it is.
        path: the file.
        preset: which detector it is; for MMDetection only if no config says so.
        config: MMDetection's config, if the file has none.
        classes: their names in order, or `coco` alone.
        norm_eps: what torchvision's norms add to a variance, if not the usual.
        partial: accept missing and unexpected tensors.

    Raises:
        UserError: the file is not allowed or damaged, or does not fit what can be built here.
    """
    names = coco_names() if classes is not None and list(classes) == [COCO] else classes
    twice = [name for name, count in Counter(names or ()).items() if count > 1]
    if twice:
        raise UserError(f"--classes names {twice[0]!r} twice: classes are told apart by name.")
    if source == "mmdet":
        if norm_eps is not None:
            raise UserError("--norm_eps is for torchvision's files: MMDetection's norms are known.")
        return mmdet.load(path, config=config, preset=preset, classes=names, partial=partial)
    if config is not None or preset is None:
        known = ", ".join(torchvision.PRESETS)
        raise UserError(
            f"torchvision's files have no config: say what it is with --preset {known}."
        )
    eps = torchvision.EPS if norm_eps is None else norm_eps
    return torchvision.load(path, preset=preset, classes=names, norm_eps=eps, partial=partial)


def coco_names() -> list[str]:
    """COCO's 80 classes in the order of their ids."""
    categories = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return [name for name in categories if name not in torchvision.UNNAMED]
