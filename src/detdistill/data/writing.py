"""Writes a data set out as a folder in COCO's layout, which any detection code can read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from PIL import Image

from detdistill.data.coco import annotation_file, picture_folder
from detdistill.data.dataset import Dataset, Sample
from detdistill.errors import UserError
from detdistill.files import write_json

QUALITY = 95


def write_coco(folder: Path, parts: Mapping[str, Dataset]) -> None:
    """Writes JPEG pictures and JSON annotations; the folder appears when it is complete.

    Args:
        folder: must not exist yet, or be empty.
        parts: `train`, `val`, `test`, or some of them.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not empty. Choose another, or remove it.")
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    try:
        for part, dataset in parts.items():
            _write_part(temporary, part, dataset)
        temporary.replace(folder)
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_part(folder: Path, part: str, dataset: Dataset) -> None:
    truth = dataset.ground_truth()
    pictures = picture_folder(folder, part)
    pictures.mkdir(parents=True)
    for index, entry in enumerate(truth["images"]):
        _write_picture(pictures / entry["file_name"], dataset[index])
    write_json(annotation_file(folder, part), truth, compact=True)


def _write_picture(path: Path, sample: Sample) -> None:
    """With full colour resolution, since half of it would blur the smallest objects' colours."""
    pixels = sample.image.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(path, "JPEG", quality=QUALITY, subsampling=0)
