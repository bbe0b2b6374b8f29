"""What detectors compute on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from detdistill.errors import UserError

if TYPE_CHECKING:
    import torch

VARIABLE = "DETDISTILL_DEVICE"
"""Of the environment: what to compute on, if not on the best there is."""


def best_device() -> torch.device:
    """What `DETDISTILL_DEVICE` names; without it the accelerator of this machine, or its processor.

    Raises:
        UserError: what it names is not there.
    """
    import torch  # only here: a page of help needs none

    if name := os.environ.get(VARIABLE):
        return available(name, asked_by=f"{VARIABLE}: ")
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def available(name: str, *, asked_by: str = "") -> torch.device:
    """The device of a name: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        UserError: it is not there.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"{asked_by}Device {name!r} is not available here; 'cpu' always is."
        ) from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device
