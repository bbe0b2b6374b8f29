"""Checkpoints that survive a kill at any moment, also in the middle of a save.

A checkpoint is a folder. It is filled under a temporary name, synced, and only then renamed, so a
folder with a final name is always complete. While a new one takes the place of an old one there
are, at every moment, enough complete folders to go on from:

    .last.tmp  being filled, never read
    .last.new  complete, and newer than `last`
    last       complete
    .last.old  was `last`, about to be removed
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from detdistill import run_files
from detdistill.detectors import Detector
from detdistill.errors import UserError
from detdistill.files import sync_to_disk
from detdistill.interop import checkpoint as interop

STATE = "state.pt"


def save(folder: Path, state: dict[str, Any], detector: Detector, card: dict[str, Any]) -> None:
    """Replaces the checkpoint in `folder`: the state to go on from, and the plain detector.

    Raises:
        UserError: the disk is full or cannot be written to. The old checkpoint is still there.
    """

    def fill(temporary: Path) -> None:
        torch.save(state, temporary / STATE)
        interop.save(detector, temporary / run_files.STUDENT, card)

    try:
        replace_folder(folder, fill)
    except (OSError, RuntimeError) as error:
        raise UserError(f"Cannot write checkpoint {folder}: {error}.") from error


def load(folder: Path) -> dict[str, Any] | None:
    """The state in a checkpoint; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / STATE
    if not file.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"Checkpoint {file} is damaged: {error}. "
            "Start again with overwrite, or restore the file."
        ) from error
    return state


def replace_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Puts a folder filled by `fill` in the place of `folder`."""
    settle(folder)
    temporary, new, _ = _beside(folder)
    temporary.mkdir(parents=True)
    fill(temporary)
    for file in temporary.rglob("*"):
        sync_to_disk(file)
    sync_to_disk(temporary)
    temporary.rename(new)
    settle(folder)


def settle(folder: Path) -> None:
    """Ends what a killed save left: the newest complete folder gets the final name."""
    temporary, new, old = _beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    if new.exists():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
        sync_to_disk(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path, Path]:
    """The three names that a folder has while it is replaced."""
    tmp, new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("tmp", "new", "old"))
    return tmp, new, old
