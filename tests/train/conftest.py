from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.train import processes

from detdistill.data.shapes import Shapes, find
from detdistill.data.writing import write
from detdistill.train.experiment import Experiment, Optimizer
from detdistill.train.loop import train


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set so small that a training on it takes a second."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    level = find("medium")
    counts = {"train": ("train", 12), "val": ("tune", 4), "test": ("test", 4)}
    write(folder, {part: Shapes(level, *split) for part, split in counts.items()})
    return f"coco:{folder}"


@pytest.fixture(scope="session")
def plain(pictures: str) -> Experiment:
    """A training without a teacher."""
    return Experiment(
        data=pictures,
        steps=6,
        batch_size=4,
        log_every=2,
        save_every=4,
        optimizer=Optimizer(warmup_steps=2, lr=2e-3),
    )


@pytest.fixture(scope="session")
def teacher(plain: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a teacher in it."""
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    train(plain, folder, device="cpu")
    return folder


@pytest.fixture(scope="session")
def launcher() -> Iterator[processes.Launcher]:
    """Starts processes quickly: they are copies of one that has imported everything."""
    with processes.Launcher() as launcher:
        yield launcher
