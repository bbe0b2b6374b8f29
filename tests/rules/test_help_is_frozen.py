"""What the command line offers changes on purpose only.

After a change on purpose: FREEZE_HELP=1 python -m pytest tests/rules/test_help_is_frozen.py
"""

import os
from pathlib import Path

import pytest
from tests.cli.terminal import detdistill, python

from detdistill.cli import COMMANDS

FROZEN = Path(__file__).parent / "help"

PAGES = {
    "overview": ["--help"],
    **{command: [command, "--help"] for command in COMMANDS},
    "distill-pkd": ["distill", "--method", "pkd", "--help"],
}


@pytest.mark.parametrize("page", PAGES)
def test_the_help_says_what_it_said(page: str) -> None:
    done = detdistill(*PAGES[page])
    assert done.code == 0, done.err
    file = FROZEN / f"{page}.txt"
    if os.environ.get("FREEZE_HELP"):
        file.write_text(done.out, encoding="utf-8")
    assert done.out == file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cpu_seconds() -> float:
    """Half of what PyTorch takes to be imported, on whatever machine this is."""
    return python("-c", "import torch").cpu_seconds / 2


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"distill-pkd"}))
def test_help_comes_at_once(page: str, cpu_seconds: float) -> None:
    assert detdistill(*PAGES[page]).cpu_seconds < cpu_seconds
