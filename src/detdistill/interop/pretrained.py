"""Weights for a fresh backbone: trained on ImageNet and downloaded, or from a file."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torchvision.models import get_weight

from detdistill.detectors.backbones import Backbone, Features
from detdistill.detectors.backbones.features import STANDARD_WIDTH
from detdistill.detectors.backbones.timm_models import model_name
from detdistill.errors import UserError
from detdistill.interop import unpickle
from detdistill.interop.transfer import COUNTERS

IMAGENET = "imagenet"
"""What asks for a download."""
SUFFIXES = (".pth", ".pt", ".safetensors")
PATIENCE = 10.0
"""Seconds without an answer after which a download fails."""

TORCHVISION = {
    "resnet18": "ResNet18_Weights",
    "resnet34": "ResNet34_Weights",
    "resnet50": "ResNet50_Weights",
    "resnet101": "ResNet101_Weights",
    "resnet152": "ResNet152_Weights",
    "resnext50_32x4d": "ResNeXt50_32X4D_Weights",
    "resnext101_32x8d": "ResNeXt101_32X8D_Weights",
    "resnext101_64x4d": "ResNeXt101_64X4D_Weights",
    "mobilenetv2": "MobileNet_V2_Weights",
    "swin_t": "Swin_T_Weights",
}
"""Whose weights torchvision has; the first version of each, which detectors commonly start from."""
TIMM = {"resnext101_32x4d": "resnext101_32x4d.gluon_in1k"}
"""Whose weights timm has under the names that torchvision would give them."""

_HASH = re.compile(r"-([0-9a-f]{8,})\.")
_IN_DETECTOR = "backbone."


@dataclass(frozen=True)
class Weights:
    """A backbone's tensors by name, and where they were found."""

    tensors: Mapping[str, Tensor]
    file: Path
    beside: frozenset[str] = frozenset()
    """How the names begin of what else the file holds, when it is a detector's."""


def read(source: str, backbone: Backbone) -> Weights:
    """The weights that `source` names: `imagenet`, or a file.

    Raises:
        UserError: there are none, they cannot be downloaded, or the file holds something else.
    """
    file = _downloaded(*_address(backbone)) if source == IMAGENET else Path(source)
    tensors = unpickle.state_dict(_opened(file))
    if not tensors:
        raise UserError(f"{file} holds no tensors by name.")
    inner = {
        name.removeprefix(_IN_DETECTOR): tensor
        for name, tensor in tensors.items()
        if name.startswith(_IN_DETECTOR)
    }
    if not inner:
        return Weights(tensors, file)
    return Weights(inner, file, _beginnings(tensors) - {_IN_DETECTOR.rstrip(".")})


def fill(features: Features, weights: Weights) -> list[str]:
    """Gives a backbone its weights. All of it must be there, and nothing else but a classifier.

    Returns:
        How the names begin of what was left out.

    Raises:
        UserError: tensors are missing, unexpected or of another shape.
    """
    found = {n: t for n, t in weights.tensors.items() if not n.startswith(features.ignored)}
    complaints = _differences(features, found)
    if complaints:
        raise UserError(
            f"{weights.file} does not fit the backbone {features.settings.name} of width "
            f"{features.settings.width}: {'; '.join(complaints)}."
        )
    features.fill(found)
    return sorted(weights.beside | _beginnings(weights.tensors.keys() - found.keys()))


def _differences(features: Features, found: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with weights, a sentence's part for each kind of mistake."""
    wanted = features.wanted()
    missing = [
        name
        for name in wanted
        if name not in found and not name.endswith(COUNTERS) and not name.startswith(features.fresh)
    ]
    unexpected = [name for name in found if name not in wanted]
    misshapen = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
        for name, tensor in found.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    return [
        f"{len(names)} tensors {kind}, {names[0]} first" for kind, names in kinds.items() if names
    ]


def _opened(file: Path) -> Mapping[str, Any]:
    """What a file holds. Nothing in it is run."""
    if file.suffix not in SUFFIXES:
        raise UserError(
            f"pretrained is {str(file)!r}, but must be {IMAGENET!r} or a file that ends in "
            f"{', '.join(SUFFIXES)}."
        )
    if not file.is_file():
        raise UserError(f"There is no file {file} with pretrained weights.")
    if file.suffix != ".safetensors":
        content = unpickle.read(file)
        return content if isinstance(content, Mapping) else {}
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read, it may be cut short: {error}.") from error


def _beginnings(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.split(".")[0] for name in names)


def _address(backbone: Backbone) -> tuple[str, str]:
    """Where the ImageNet weights of a backbone are, and what their file is called."""
    if backbone.name.startswith("timm/"):
        return _address_of_timm(model_name(backbone), backbone.name)
    published = backbone.style == "pytorch" and backbone.width == STANDARD_WIDTH
    if published and backbone.name in TORCHVISION:
        url = get_weight(f"{TORCHVISION[backbone.name]}.IMAGENET1K_V1").url
        return url, url.rpartition("/")[2]
    if published and backbone.name in TIMM:
        return _address_of_timm(TIMM[backbone.name], backbone.name)
    raise UserError(
        f"There are no ImageNet weights to download for the backbone {backbone.name} of width "
        f"{backbone.width} in {backbone.style} style: give a file with pretrained, or leave it out."
    )


def _address_of_timm(model: str, name: str) -> tuple[str, str]:
    import timm

    config = cast("Any", timm.get_pretrained_cfg(model))
    if config.hf_hub_id:
        file = config.hf_hub_filename or "model.safetensors"
        address = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{file}"
        return address, f"{config.architecture}.{config.tag}{Path(file).suffix}"
    if config.url:
        return config.url, config.url.rpartition("/")[2]
    raise UserError(f"There are no ImageNet weights to download for the backbone {name}.")


def _downloaded(url: str, name: str) -> Path:
    """The file in torch's cache, fetched if it is not there yet."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if file.exists():
        return file
    found = _HASH.search(name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _impatience():
            torch.hub.download_url_to_file(url, str(file), found and found[1], progress=False)
    except (OSError, HTTPException, RuntimeError) as error:
        raise UserError(
            f"The ImageNet weights cannot be downloaded from {url}: {error}. Put that file at "
            f"{file}, or name another file with pretrained."
        ) from error
    return file


@contextmanager
def _impatience() -> Iterator[None]:
    """Connections that do not answer fail inside, instead of waiting for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
