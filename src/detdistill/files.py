"""Writing files so that a reader finds the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from detdistill.errors import UserError

DIGITS = 8
"""By which the temporary names of the same file differ."""


def replace_file(path: Path, write: Callable[[Path], object], *, sync: bool = True) -> None:
    """Lets `write` fill a temporary file beside `path`, syncs it and renames it into place.

    Without `sync`, which takes some milliseconds, a power failure may leave half of it.

    Raises:
        UserError: the folder cannot be written to.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        if sync:
            sync_to_disk(temporary)
        temporary.replace(path)
        if sync:
            sync_to_disk(path.parent)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex[:DIGITS]}.tmp")


def temporaries(folder: Path) -> list[Path]:
    """What a kill left behind in a folder of files that were to be written."""
    return list(folder.glob(f".*.{'[0-9a-f]' * DIGITS}.tmp"))


def require_writable(path: Path) -> None:
    """Makes sure, before any work is done, that a file `path` could be written.

    Raises:
        UserError: it is a folder, a file stands in the way, or there is no permission.
    """
    if path.is_dir():
        raise UserError(f"Cannot write {path}: it is a folder. Name a file.")
    _require_reachable(path)


def _require_reachable(path: Path) -> None:
    nearest = next(place for place in path.absolute().parents if place.exists())
    if not nearest.is_dir():
        raise UserError(f"Cannot write {path}: {nearest} is a file, not a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"Cannot write {path}: no permission in {nearest}.")


def require_new_folder(folder: Path) -> None:
    """Makes sure, before any work is done, that nothing is lost if `folder` is made.

    Raises:
        UserError: it is there and not empty, or could not be made.
    """
    _require_reachable(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not empty. Choose another, or remove it.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to be filled in the block, which then appears as `folder`, or not at all.

    Raises:
        UserError: `folder` is there and not empty, or cannot be written.
    """
    folder = folder.resolve()
    require_new_folder(folder)
    temporary = _temporary(folder)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(folder)
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, all or nothing."""
    replace_file(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any, *, compact: bool = False) -> None:  # noqa: ANN401 - any JSON value
    """Writes `content` as JSON, all or nothing; indented, unless nobody will read that much."""
    indent = None if compact else 2
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Reads a JSON file.

    Raises:
        UserError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from error


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - any YAML value
    """Reads a YAML file.

    Raises:
        UserError: there is no such file, or it is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as YAML: {reason}.") from error


def sync_to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, would outlast a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
