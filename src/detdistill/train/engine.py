"""Starts accelerate: the device, the precision, the ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object

from detdistill.device import available, best_device
from detdistill.errors import UserError
from detdistill.train.allocator import keep_freed_memory
from detdistill.train.experiment import Experiment

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def start(experiment: Experiment, device: str | None = None) -> Accelerator:
    """One rank's access to its device and to the other ranks.

    Args:
        experiment: its `precision`, `compile` and `keep_memory` are used.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; None for the best there is.

    Raises:
        UserError: the device is not there, or cannot compute in this precision.
    """
    chosen = best_device() if device is None else available(device)
    _check_precision(experiment.precision, chosen)
    if chosen.type == "cpu" and experiment.keep_memory:
        keep_freed_memory()
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - one run, one state
    return Accelerator(
        mixed_precision=PRECISIONS[experiment.precision],
        cpu=chosen.type == "cpu",
        dynamo_backend="inductor" if experiment.compile else None,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def first(engine: Accelerator, act: Callable[[], object]) -> None:
    """Lets the first rank do something while the others wait.

    Raises:
        UserError: the first rank did; every rank gets the same.
    """
    complaint = None
    if engine.is_main_process:
        try:
            act()
        except UserError as error:
            complaint = str(error)
    if said := agree(engine, complaint):
        raise UserError(said)


def agree(engine: Accelerator, complaint: str | None) -> str | None:
    """The first complaint of any rank; every rank gets the same answer."""
    if engine.num_processes == 1:
        return complaint
    complaints: list[Any] = gather_object([complaint])
    return next((found for found in complaints if found), None)


def _check_precision(precision: str, device: torch.device) -> None:
    if precision == "fp16" and device.type != "cuda":
        raise UserError(
            f"Precision fp16 needs a CUDA device, this is {device.type}. "
            "Use bf16, or fp32 where in doubt."
        )
    if (
        precision == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise UserError("This CUDA device does not compute in bf16. Use precision fp16 or fp32.")
