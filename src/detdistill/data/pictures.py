"""Reads picture files: whatever is in them comes out as upright RGB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from detdistill.errors import UserError

UNREADABLE = (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises on damaged files."""

SHOWN = 3
"""Missing files that an error names."""


def read(path: Path, size: tuple[int, int] | None = None) -> Tensor:
    """(3, H, W) uint8 RGB.

    A camera's note that the picture lies on its side is obeyed, unless only the picture as it lies
    has the (width, height) that is asked for.

    Raises:
        UserError: the file is missing, is no picture, is cut off, or has another size.
    """
    try:
        with Image.open(path) as image:
            return _tensor(_upright(image, size))
    except FileNotFoundError as error:
        raise UserError(f"There is no picture {path}.") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not a picture, or of an unknown format.") from error
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read as a picture: {error}.") from error


def _upright(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if size in (None, upright.size):
        return upright
    if size == image.size:
        return image
    raise ValueError(f"it is {upright.width}x{upright.height}, its annotation {size[0]}x{size[1]}")


def _tensor(image: Image.Image) -> Tensor:
    if image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would clip instead of scale
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def check_all(folder: Path, names: Sequence[str]) -> None:
    """Checks that every picture exists, without opening it.

    Raises:
        UserError: the folder or some of the pictures are missing.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}, where the pictures should be.")
    here = {entry.name for entry in folder.iterdir()}
    missing = [name for name in names if name not in here and not (folder / name).is_file()]
    if missing:
        rest = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise UserError(
            f"{folder} lacks pictures that its annotations name: "
            f"{', '.join(missing[:SHOWN])}{rest}. Complete the folder, or remove them there."
        )
