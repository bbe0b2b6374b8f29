"""How many pictures a second the input path delivers, and how many a training step takes.

`python -m benchmarks.loading` writes `loading.json` to `runs/bench`. Pictures of files are decoded
anew each time, those of `shapes` drawn anew, as in the first pass over a large data set.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from detdistill import data
from detdistill.data import folder as folders
from detdistill.data import scenes
from detdistill.files import write_json
from detdistill.structures import Batch
from detdistill.train import engine
from detdistill.train.assembly import augmenter, build
from detdistill.train.experiment import Experiment
from detdistill.train.trainer import Trainer

WORKERS = (0, 1, 2)
WINDOWS = 10
"""Throughput is measured so often, each time over `WINDOW` batches."""
WINDOW = 5
WARM_UP = 2
"""Windows that do not count: workers start."""
STEPS = 4
"""Training steps that are timed; the first does not count."""

PICTURES = 60
SIZE = (640, 480)
"""Width and height of the pictures that are written, the most frequent ones of COCO."""
QUALITY = 90
OBJECTS = 7
"""In a picture, as many as COCO has on average."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Pictures a second."""

    name: str
    median: float
    low: float
    """10th percentile."""
    high: float
    """90th percentile."""
    unit: str = "images/s"


def rows() -> list[dict[str, Any]]:
    """For `shapes` and for files in COCO's layout: loading by 0, 1 and 2 workers, and training."""
    with tempfile.TemporaryDirectory() as place:
        write_pictures(Path(place))
        coco = Experiment(
            data=f"coco:{place}", student="gfl-r18", resize=(800, 1333), batch_size=2, steps=10**6
        )
        shapes = Experiment(steps=10**6)
        found = [*_measured("shapes, 128 x 128", shapes), *_measured("COCO, 1067 x 800", coco)]
    return [asdict(row) for row in found]


def write_pictures(place: Path) -> None:
    """A small folder in COCO's layout, of smooth pictures that compress as photographs do."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        folder = place / f"{part}2017"
        folder.mkdir(parents=True)
        for number in range(PICTURES):
            coarse = rng.integers(256, size=(60, 80, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
            picture.save(folder / f"{number}.jpg", quality=QUALITY)
        write_json(place / "annotations" / f"instances_{part}2017.json", _annotations(rng))


def _annotations(rng: np.random.Generator) -> dict[str, Any]:
    width, height = SIZE
    corners = rng.integers(0, [width // 2, height // 2], size=(PICTURES * OBJECTS, 2)).tolist()
    sides = rng.integers(16, [width // 2, height // 2], size=(PICTURES * OBJECTS, 2)).tolist()
    return {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": width, "height": height}
            for number in range(PICTURES)
        ],
        "annotations": [
            {"id": n + 1, "image_id": n // OBJECTS, "category_id": 1, "bbox": [*corner, *side]}
            for n, (corner, side) in enumerate(zip(corners, sides, strict=True))
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }


def _measured(name: str, experiment: Experiment) -> Iterator[Row]:
    for workers in WORKERS:
        rates = _loading(replace(experiment, workers=workers))
        yield _row(f"{name}, loading, {workers} worker(s)", rates)
    yield _row(f"{name}, training {experiment.student}", _training(experiment))


def _loading(experiment: Experiment) -> list[float]:
    """Pictures a second, window by window."""
    scenes.draw.cache_clear()
    kept, folders.CACHE_BYTES = folders.CACHE_BYTES, 0
    try:
        batches = _batches(experiment)
        rates = [_rate(lambda: next(batches), experiment) for _ in range(WARM_UP + WINDOWS)]
    finally:
        folders.CACHE_BYTES = kept
    return rates[WARM_UP:]


def _rate(advance: Callable[[], object], experiment: Experiment, times: int = WINDOW) -> float:
    start = time.perf_counter()
    for _ in range(times):
        advance()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return times * experiment.batch_size / (time.perf_counter() - start)


def _batches(experiment: Experiment) -> Iterator[Batch]:
    return data.stream(
        data.open(experiment.data, "train"),
        seed=experiment.seed,
        batch_size=experiment.batch_size,
        steps=experiment.steps,
        flip=experiment.flip,
        change=augmenter(experiment),
        workers=experiment.workers,
    )


def _training(experiment: Experiment) -> list[float]:
    """Pictures a second of steps on one batch, which is there already."""
    trainer = Trainer(build(experiment).step, experiment, engine.start(experiment))
    batch = next(_batches(experiment))
    rates = [
        _rate(lambda: trainer.advance(iter([batch])), experiment, times=1) for _ in range(STEPS)
    ]
    return rates[1:]


def _row(name: str, rates: list[float]) -> Row:
    tenths = statistics.quantiles(rates, n=10, method="inclusive")
    return Row(name=name, median=statistics.median(rates), low=tenths[0], high=tenths[-1])


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    found = rows()
    write_json(options.out / "loading.json", found)
    print(json.dumps(found, indent=2))  # noqa: T201 - the numbers are the point


if __name__ == "__main__":
    main()
