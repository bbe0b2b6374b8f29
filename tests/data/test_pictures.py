from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detdistill.data import pictures
from detdistill.errors import UserError

ORIENTATION = 0x0112


def gradient() -> Image.Image:
    """Bright at the left, dark at the right."""
    row = np.linspace(250, 10, 24).astype(np.uint8)
    return Image.fromarray(np.repeat(np.repeat(row[None, :, None], 16, 0), 3, 2))


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("RGB", "jpg"), ("L", "png"), ("CMYK", "jpg"), ("P", "png"), ("RGBA", "png"), ("LA", "png")],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str, ending: str) -> None:
    file = tmp_path / f"picture.{ending}"
    original = gradient().convert(mode)
    original.save(file)
    image = pictures.read(file)
    assert image.shape == (3, 16, 24)
    assert image.dtype == torch.uint8
    expected = torch.from_numpy(np.array(original.convert("RGB"))).permute(2, 0, 1)
    assert (image.float() - expected.float()).abs().mean() < 4


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    file = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 128 * 256, dtype=np.uint16)).save(file)
    assert pictures.read(file).unique().tolist() == [128]


def lying(tmp_path: Path) -> Path:
    """A picture whose camera says that it must be turned by a quarter."""
    file, note = tmp_path / "lying.jpg", Image.Exif()
    note[ORIENTATION] = 6
    gradient().save(file, exif=note, quality=95)
    return file


def test_a_picture_on_its_side_is_stood_up(tmp_path: Path) -> None:
    image = pictures.read(lying(tmp_path))
    assert image.shape == (3, 24, 16)
    assert image[:, 0].float().mean() > 200
    assert image[:, -1].float().mean() < 60


def test_a_picture_annotated_as_it_lies_is_left_lying(tmp_path: Path) -> None:
    assert pictures.read(lying(tmp_path), (24, 16)).shape == (3, 16, 24)
    assert pictures.read(lying(tmp_path), (16, 24)).shape == (3, 24, 16)


def test_what_is_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    text, cut, gone = (tmp_path / name for name in ("text.jpg", "cut.jpg", "gone.jpg"))
    text.write_text("hello")
    gradient().resize((200, 200)).save(cut)
    cut.write_bytes(cut.read_bytes()[:600])
    for file in (text, cut, gone, tmp_path):
        with pytest.raises(UserError, match=file.name):
            pictures.read(file)


@pytest.mark.parametrize("decode", [False, True])
def test_files_that_cannot_be_read_are_found_by_their_position(
    tmp_path: Path, decode: bool
) -> None:
    whole, cut, gone = (tmp_path / name for name in ("whole.jpg", "cut.jpg", "gone.jpg"))
    gradient().save(whole)
    cut.write_bytes(whole.read_bytes()[:-20])
    files = [whole, cut, gone, lying(tmp_path), whole]
    sizes = [(24, 16), (24, 16), (24, 16), (16, 24), (25, 16)]
    found = pictures.complaints(files, sizes, decode=decode)
    assert list(found) == [1, 2, 4]
    assert "cut.jpg cannot be read" in found[1]
    assert "no picture" in found[2]
    assert "it is 24x16, its annotation 25x16" in found[4]
