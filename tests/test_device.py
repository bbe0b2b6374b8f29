from __future__ import annotations

import pytest
import torch

from detdistill.device import VARIABLE, best_device
from detdistill.errors import UserError


def test_the_environment_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("mps"))
    monkeypatch.setenv(VARIABLE, "")
    assert best_device() == torch.device("mps")
    monkeypatch.setenv(VARIABLE, "cpu")
    assert best_device() == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(UserError, match=f"^{VARIABLE}: Device '{name}' is not available here"):
        best_device()
