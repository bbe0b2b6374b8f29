"""A small run to try the commands on."""

from pathlib import Path

import pytest
from tests.cli.terminal import MICRO, detdistill


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    done = detdistill("train", *MICRO, "--out", folder)
    assert done.code == 0, done.err
    return folder
