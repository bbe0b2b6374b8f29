import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from detdistill.errors import UserError
from detdistill.train import checkpoint


class PowerFailure(BaseException):
    """Nothing after it happens, and nobody catches it."""


class FailingDisk:
    """Lets a number of operations through, then fails for ever."""

    def __init__(self, allowed: int) -> None:
        self.left = allowed

    def count(self) -> None:
        if self.left == 0:
            raise PowerFailure
        self.left -= 1


OPERATIONS = (
    (Path, "mkdir"),
    (Path, "rename"),
    (Path, "write_text"),
    (shutil, "rmtree"),
    (os, "fsync"),
    (os, "unlink"),
    (os, "rmdir"),
)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingDisk]:
    failing = FailingDisk(-1)
    for owner, name in OPERATIONS:
        monkeypatch.setattr(owner, name, _counted(getattr(owner, name), failing))
    yield failing
    failing.left = -1


def _counted(operation, disk: FailingDisk):  # noqa: ANN001, ANN202
    def counted(*arguments, **settings):  # noqa: ANN002, ANN003, ANN202
        disk.count()
        return operation(*arguments, **settings)

    return counted


def put(folder: Path, text: str) -> None:
    def fill(temporary: Path) -> None:
        for name in ("one", "two"):
            (temporary / name).write_text(text)

    checkpoint.replace_folder(folder, fill)


def content(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in ("one", "two")]


@pytest.mark.parametrize("allowed", range(40))
def test_after_a_failure_at_any_moment_there_is_one_complete_checkpoint(
    tmp_path: Path, disk: FailingDisk, allowed: int
) -> None:
    folder = tmp_path / "last"
    put(folder, "old")
    disk.left = allowed
    try:
        put(folder, "new")
        finished = True
    except PowerFailure:
        finished = False
    disk.left = -1
    checkpoint.settle(folder)
    assert content(folder) in ([["new", "new"]] if finished else [["old", "old"], ["new", "new"]])
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("first", range(0, 24, 3))
@pytest.mark.parametrize("second", range(6))
def test_a_failure_while_mending_a_failure_loses_nothing(
    tmp_path: Path, disk: FailingDisk, first: int, second: int
) -> None:
    folder = tmp_path / "last"
    put(folder, "old")
    for allowed, save in ((first, True), (second, False)):
        disk.left = allowed
        try:
            if save:
                put(folder, "new")
            checkpoint.settle(folder)
        except PowerFailure:
            pass
    disk.left = -1
    checkpoint.settle(folder)
    assert content(folder) in (["old", "old"], ["new", "new"])


def test_the_failures_of_the_test_above_reach_past_the_end_of_a_save(
    tmp_path: Path, disk: FailingDisk
) -> None:
    put(tmp_path / "last", "old")
    disk.left = 40
    put(tmp_path / "last", "new")
    assert disk.left > 0


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    checkpoint.settle(tmp_path / "last")
    assert checkpoint.load(tmp_path / "last") is None


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    torch.save({"step": torch.rand(100)}, tmp_path / checkpoint.STATE)
    damaged = (tmp_path / checkpoint.STATE).read_bytes()[:500]
    (tmp_path / checkpoint.STATE).write_bytes(damaged)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # noqa: ANN204
            return os.system, ("touch " + str(tmp_path / "ran"),)

    torch.save({"step": Evil()}, tmp_path / checkpoint.STATE)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "ran").exists()
