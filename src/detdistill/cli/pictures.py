"""Finds picture files, and names for what is written about them."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path

from detdistill.data.pictures import ENDINGS
from detdistill.errors import UserError

NUMBER = re.compile(r"(\d+)")


def find(paths: Sequence[str]) -> list[Path]:
    """The files that paths, folders and patterns name, each once.

    What one of them names is in the order in which people count: frame2 before frame10.

    Raises:
        UserError: one of the paths names nothing.
    """
    return list(dict.fromkeys(file for path in paths for file in _files(path)))


def _files(path: str) -> list[Path]:
    place = Path(path)
    what = f"There is no file or folder {path}."
    found: Iterable[Path]
    if place.is_dir():
        found = (file for file in place.rglob("*") if file.suffix.lower() in ENDINGS)
        what = f"The folder {path} holds no pictures ({', '.join(sorted(ENDINGS))})."
    elif place.exists():
        found = [place]
    else:
        found = map(Path, glob.glob(path, recursive=True))  # noqa: PTH207 - patterns with folders
    files = sorted(filter(Path.is_file, found), key=_natural)
    if not files:
        raise UserError(what)
    return files


def _natural(file: Path) -> tuple[list[list[str | int]], str]:
    """Sorts numbers in names by their value, folder by folder."""
    return [_words_and_numbers(part) for part in file.parts], str(file)


def _words_and_numbers(name: str) -> list[str | int]:
    """`frame12.png` -> `frame`, 12, `.png`: words at even places, numbers at odd ones."""
    parts = NUMBER.split(name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def stems(files: Sequence[Path]) -> dict[Path, str]:
    """`cat` for `cat.jpg`; folder names and numbers tell those apart that would be the same."""
    shared = Counter(file.stem for file in files)
    used = set[str]()
    names = {}
    for file in files:
        stem = file.stem if shared[file.stem] == 1 else "-".join(file.with_suffix("").parts[-2:])
        numbered = (f"{stem}-{number}" for number in count(2))
        names[file] = next(name for name in chain([stem], numbered) if name not in used)
        used.add(names[file])
    return names
