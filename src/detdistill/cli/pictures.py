"""Finds picture files, runs a detector on them, writes drawn copies and the detections."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from detdistill.cli import ready
from detdistill.data import Resize, pictures
from detdistill.data.transforms import scale
from detdistill.errors import UserError
from detdistill.evaluate import Detector, detect
from detdistill.files import replace_file, require_writable, write_json
from detdistill.show.detections import Objects, draw

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
"""Files that are taken from a folder; a file that is named is opened whatever its ending."""

SHOWN_FAILURES = 3

Found = list[dict[str, Any]]


def predict(checkpoint: str, paths: Sequence[str], out: Path, *, score: float) -> dict[str, Any]:
    """Detections for every picture that can be read.

    Returns:
        `images`: by path, a list of `label`, `score`, `box` (xyxy in pixels); `skipped`: by path,
        why a picture could not be read.

    Raises:
        UserError: there is no checkpoint or no picture, none of the pictures can be read, or a
            drawn copy would replace one.
    """
    require_writable(out / "detections.json")
    detector, resize = ready.load(checkpoint)
    files = find(paths, without=out)
    names = _drawn_names(files)
    _refuse_to_replace(files, [out / name for name in names.values()])
    found: dict[str, Found] = {}
    skipped: dict[str, str] = {}
    for file in files:
        try:
            image = pictures.read(file)
        except UserError as error:
            skipped[str(file)] = str(error)
            continue
        found[str(file)] = _predict_one(detector, resize, image, out / names[file], score)
    if not found:
        raise UserError(_nothing_readable(list(skipped.values())))
    result = {"images": found, "skipped": skipped}
    write_json(out / "detections.json", result)
    return result


def find(paths: Sequence[str], *, without: Path) -> list[Path]:
    """The files that paths, folders and patterns name, each once, in order.

    Args:
        paths: where to look.
        without: a folder that is passed over inside of others: what was drawn before is in it.

    Raises:
        UserError: one of the paths names nothing.
    """
    return list(dict.fromkeys(file for path in paths for file in _files(path, without)))


def _files(path: str, without: Path) -> list[Path]:
    place = Path(path)
    if place.is_dir():
        inner = without.resolve()
        found = sorted(
            file
            for file in place.rglob("*")
            if file.suffix.lower() in ENDINGS
            and (inner == place.resolve() or inner not in file.resolve().parents)
        )
        what = f"The folder {path} holds no pictures ({', '.join(sorted(ENDINGS))})."
    elif place.exists():
        return [place]
    else:
        found = [Path(file) for file in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207
        what = f"There is no file or folder {path}."
    if not found:
        raise UserError(what)
    return found


def _refuse_to_replace(files: Sequence[Path], drawn: Sequence[Path]) -> None:
    lost = {file.resolve() for file in files} & {file.resolve() for file in drawn}
    if lost:
        raise UserError(f"The drawn copy would replace {min(lost)}: choose another --out.")


def _nothing_readable(reasons: Sequence[str]) -> str:
    rest = f" And {len(reasons) - SHOWN_FAILURES} more." if len(reasons) > SHOWN_FAILURES else ""
    return f"No picture can be read. {' '.join(reasons[:SHOWN_FAILURES])}{rest}"


def _predict_one(
    detector: Detector, resize: Resize | None, image: Tensor, drawn: Path, score: float
) -> Found:
    seen = resize.picture(image) if resize else image
    found = detect(detector, [seen], canvas=resize.canvas if resize else 0)
    found = replace(found, boxes=found.boxes * scale(seen, image))
    shown = Objects.from_detections(found, 0, min_score=score)
    picture = draw(image, shown, detector.spec.classes, width=image.shape[-1])
    replace_file(drawn, lambda file: picture.save(file, format="PNG"))
    every = Objects.from_detections(found, 0)
    return list(_records(every, detector.spec.classes))


def _records(objects: Objects, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    rows = zip(objects.labels, objects.scores or [], objects.boxes.tolist(), strict=True)
    for label, score, box in rows:
        yield {"label": classes[label], "score": score, "box": box}


def _drawn_names(files: Sequence[Path]) -> dict[Path, str]:
    """`cat.jpg` is drawn as `cat.png`; where several would, folder names are put before it."""
    stems = Counter(file.stem for file in files)
    taken: Counter[str] = Counter()
    names = {}
    for file in files:
        stem = file.stem if stems[file.stem] == 1 else "-".join(file.with_suffix("").parts[-2:])
        taken[stem] += 1
        names[file] = f"{stem}.png" if taken[stem] == 1 else f"{stem}-{taken[stem]}.png"
    return names
