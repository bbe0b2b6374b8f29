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


def replace_file(path: Path, write: Callable[[Path], object], *, sync: bool = True) -> None:
    """Lets `write` fill a temporary file beside `path`, syncs it and renames it into place.

    Without `sync`, which takes some milliseconds, a power failure may leave half of it.

    Raises:
        UserError: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        if sync:
            _sync(temporary)
        temporary.replace(path)
        if sync:
            _sync(path.parent)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Makes sure, before any work is done, that `path` could be written or made.

    Raises:
        UserError: a file stands in the way, or there is no permission.
    """
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
    require_writable(folder)
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
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
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
        return json.loads(path.read_text(encoding="utf-8"))
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
