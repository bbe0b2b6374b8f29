"""The world of somebody who has not installed an extra."""

from __future__ import annotations

import sys

import pytest

OF_DETR = ("deformable_detr", "matching", "query_encoder", "query_head", "transformer")
"""The modules of `detdistill.detectors` that need `transformers` or `scipy`."""


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing a package of the extra `detr` fails, and nothing has imported it before."""
    for name in OF_DETR:
        monkeypatch.delitem(sys.modules, f"detdistill.detectors.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
