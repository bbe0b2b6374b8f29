"""What is listed where the packages of an extra are missing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests import extras

from detdistill import detectors
from detdistill.cli import listings


@pytest.fixture(autouse=True)
def _few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["gfl-mini-w8", "deformable_detr-mini-w8", "deformable_detr-quick-w8"]
    monkeypatch.setattr(detectors, "names", lambda: few)


def test_a_detector_of_an_extra_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    listings.show_detectors()
    listed = capsys.readouterr().out
    assert "deformable_detr-mini-w8" in listed
    assert "pip install" not in listed


def test_without_the_extra_the_list_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    extras.without("transformers", monkeypatch)
    listings.show_detectors()
    listed = capsys.readouterr().out
    assert "gfl-mini-w8" in listed
    assert "deformable_detr" not in listed
    assert listed.count("pip install '.[detr]'") == 1


def test_an_extra_is_imported_only_when_it_is_used() -> None:
    words = "import sys, detdistill.detectors, detdistill.cli.commands"
    asked = "sys.exit(str({'transformers', 'scipy'} & set(sys.modules) or ''))"
    done = subprocess.run(
        [sys.executable, "-c", f"{words}; {asked}"], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
