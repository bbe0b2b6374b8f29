"""Reads picture files: whatever is in them comes out as upright RGB."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from detdistill.errors import UserError

UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged files."""

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
"""Files that are taken from a folder; a file that is named is opened whatever its ending."""

Size = tuple[int, int]
"""Width and height."""

ORIENTATION = 0x0112
LYING = range(5, 9)
"""Orientations of a camera's note that exchange width and height."""

COMPLETE = (b"\xff\xd9", b"IEND\xaeB`\x82")
"""How JPEG and PNG files end that nobody has cut off."""

THREADS = 8


class UnreadableError(UserError):
    """A picture file that cannot be used."""


def read(path: Path, size: Size | None = None) -> Tensor:
    """(3, H, W) uint8 RGB; of an animation the first frame.

    Its channels lie together in memory, as they are decoded, which resizes twice as fast.
    A camera's note that the picture lies on its side is obeyed, unless only the picture as it lies
    has the size that is asked for.

    Raises:
        UnreadableError: the file is missing, is no picture, is damaged, or has another size.
    """
    try:
        with Image.open(path) as image:
            return _tensor(_upright(image, size))
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def upright_size(path: Path) -> Size:
    """What `read` will find, without decoding the picture.

    Raises:
        UnreadableError: the file is missing or is no picture.
    """
    try:
        with Image.open(path) as image:
            return _sizes(image)[0]
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def complaints(files: Sequence[Path], sizes: Sequence[Size], *, decode: bool) -> dict[int, str]:
    """Which of the files cannot be read as pictures of these sizes, and why, by their position.

    Without `decode`, JPEG and PNG files are judged by their first and last bytes.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda file, size: _complaint(file, size, decode), files, sizes)
        return {place: complaint for place, complaint in enumerate(found) if complaint}


def _complaint(path: Path, size: Size, decode: bool) -> str | None:
    try:
        if decode or not _ends_well(path):
            read(path, size)
            return None
        with Image.open(path) as image:
            _check_size(image, size)
    except UNREADABLE as error:
        return str(_unreadable(path, error))
    except UserError as error:
        return str(error)
    return None


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(len(COMPLETE[1]), os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read().endswith(COMPLETE)


def _unreadable(path: Path, error: BaseException) -> UnreadableError:
    if isinstance(error, FileNotFoundError):
        return UnreadableError(f"There is no picture {path}.")
    if isinstance(error, UnidentifiedImageError):
        return UnreadableError(f"{path} is not a picture, or of an unknown format.")
    return UnreadableError(f"{path} cannot be read as a picture: {error}.")


def _sizes(image: Image.Image) -> tuple[Size, Size]:
    """Of the picture as it stands, and as it lies."""
    across, down = image.size
    turned = image.getexif().get(ORIENTATION) in LYING
    return ((down, across) if turned else image.size), image.size


def _check_size(image: Image.Image, size: Size) -> None:
    """Raises ValueError if the picture has that size neither standing nor lying."""
    upright, lying = _sizes(image)
    if size not in (upright, lying):
        raise ValueError(f"it is {upright[0]}x{upright[1]}, its annotation {size[0]}x{size[1]}")


def _upright(image: Image.Image, size: Size | None) -> Image.Image:
    if size is not None:
        _check_size(image, size)
    upright = ImageOps.exif_transpose(image)
    return upright if size in (None, upright.size) else image


def _tensor(image: Image.Image) -> Tensor:
    if image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would clip instead of scale
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise ValueError("its 32-bit values have no known range; save it with 8 or 16 bits")
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)
