"""Detectors on disk: a safetensors file of plain weights beside a JSON card that explains it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from detdistill import detectors, run_files
from detdistill.detectors import Detector
from detdistill.errors import UserError
from detdistill.files import read_json, replace_file, write_json


def save(detector: Detector, path: Path, extra: dict[str, Any] | None = None) -> None:
    """Writes the weights to `path` and the card beside it, each all or nothing.

    Args:
        detector: what to save.
        path: a `.safetensors` file.
        extra: more entries for the card.
    """
    weights = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    architecture = detectors.to_card(detector.architecture)
    card = {
        "architecture": architecture,
        "classes": list(detector.spec.classes),
        "preprocessing": architecture["preprocessing"],
        "fingerprint": fingerprint(detector),
        **(extra or {}),
    }
    save_tensors(path, weights)
    write_json(card_path(path), card)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, sync: bool = True) -> None:
    """Writes contiguous tensors by name as a `.safetensors` file, as `replace_file` does.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """

    def write(file: Path) -> None:
        try:
            safetensors.torch.save_file(dict(tensors), file)
        except SafetensorError as error:
            raise OSError(str(error)) from error  # a full disk is no `OSError` there

    replace_file(path, write, sync=sync)


def load(path: Path | str) -> Detector:
    """The detector in a `.safetensors` file or in a run folder.

    Raises:
        UserError: there is none, it is not a checkpoint of ours, or card and weights differ.
    """
    file = locate(path)
    detector = detectors.from_architecture(_architecture(file))
    weights = _weights(file)
    expected = detector.state_dict()
    wrong = sorted(
        name
        for name in expected.keys() | weights.keys()
        if name not in weights
        or name not in expected
        or weights[name].shape != expected[name].shape
    )
    if wrong:
        raise UserError(
            f"{file} does not fit its card {card_path(file).name}: "
            f"{len(wrong)} tensors differ, {wrong[0]!r} first."
        )
    detector.load_state_dict(weights)
    if _card(file).get("fingerprint") not in {None, fingerprint(detector)}:
        raise UserError(
            f"{file} holds other weights than its card {card_path(file).name} speaks of: one of "
            "the two was replaced without the other. Write both again."
        )
    return detector


def copy(path: Path | str, file: Path) -> None:
    """Puts the weights that `path` names, and their card, at another place, once they fit.

    Raises:
        UserError: `load` would refuse them.
    """
    load(path)
    weights = locate(path)
    replace_file(file, lambda place: shutil.copyfile(weights, place))
    replace_file(card_path(file), lambda place: shutil.copyfile(card_path(weights), place))


def locate(path: Path | str) -> Path:
    """The weights file that `path` names.

    Raises:
        UserError: there is none.
    """
    file = Path(path)
    if file.is_dir():
        file = file / run_files.STUDENT
    if not file.is_file():
        raise UserError(
            f"There is no checkpoint at {path}: give a run folder that has finished, "
            "or a .safetensors file."
        )
    if file.suffix != ".safetensors":
        raise UserError(
            f"{path} is not a .safetensors file. Pickled checkpoints can run code when loaded "
            "and are not opened."
        )
    return file


def resize_of(path: Path | str) -> tuple[int, int] | None:
    """Largest lengths of a picture's shorter and longer side in the training; None for any.

    Raises:
        UserError: there is no checkpoint, or its card says something else.
    """
    file = locate(path)
    found = _card(file).get("resize")
    if found is None:
        return None
    if not isinstance(found, list) or [type(n) for n in found] != [int, int] or min(found) < 1:
        raise UserError(f"{card_path(file)}: 'resize' is {found!r}, not two lengths in pixels.")
    return found[0], found[1]


def data_of(path: Path | str) -> str | None:
    """The data of the training; None if the card does not say so.

    Raises:
        UserError: there is no checkpoint.
    """
    found = _card(locate(path)).get("data")
    return found if isinstance(found, str) else None


def letterbox_of(path: Path | str) -> int | None:
    """Side of the square that pictures were padded to in the training; None for none.

    Raises:
        UserError: there is no checkpoint, or its card says something else.
    """
    file = locate(path)
    found = _card(file).get("letterbox")
    if found is not None and (type(found) is not int or found < 1):
        raise UserError(f"{card_path(file)}: 'letterbox' is {found!r}, not a length in pixels.")
    return found


def card_path(file: Path) -> Path:
    """Where the card of a weights file lies."""
    return file.with_suffix(".json")


def card_beside(place: Path) -> dict[str, Any]:
    """The card of a run folder or of a `.safetensors` file; empty if it is not there."""
    card = card_path(place / run_files.STUDENT if place.is_dir() else place)
    return dict(read_json(card)) if card.is_file() else {}


def fingerprint(detector: Detector) -> str:
    """A short hash of all weights, the same for equal weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(detector.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _architecture(file: Path) -> detectors.AnyArchitecture:
    return detectors.from_card(_card(file)["architecture"])


def _card(file: Path) -> dict[str, Any]:
    card = card_path(file)
    if not card.is_file():
        raise UserError(f"{file} has no card {card.name} beside it, which names its architecture.")
    content = read_json(card)
    if not isinstance(content, dict) or "architecture" not in content:
        raise UserError(f"{card} is not a detector's card: it has no entry 'architecture'.")
    return content


def _weights(file: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read, it may be cut short: {error}.") from error
