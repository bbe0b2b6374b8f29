"""How large and how fast a detector is: parameters, operations, latency, memory."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from detdistill.evaluate.run import Detector, evaluating
from detdistill.structures import PREDICTIONS
from detdistill.winograd import ordinary_convolutions

MEGABYTE = 1e6
WARM_UP = 3
"""Passes that are not timed."""


def facts(
    detector: Detector,
    image_size: tuple[int, int],
    *,
    repeats: int = 20,
) -> dict[str, Any]:
    """Parameters, operations, latency and memory of a detector, ready for JSON.

    The images are noise, in which a detector finds little: non-maximum suppression takes longer
    where there is much to find. Latency is that of the forward pass and of `detect`, images loaded.

    Args:
        detector: on the device that is to be timed.
        image_size: height and width.
        repeats: timed passes.

    Returns:
        `parameters`; `flops` per image, of the forward pass and of the layers that `detect`
        runs, with `flops_per_multiply_add` 2;
        `latency_ms` per image, with `median`, `low` and `high` (10th and 90th percentile);
        `peak_tensor_mb`, the most megabytes of tensors alive at once beside weights and images;
        and what was measured: `image_size`, `batch_size`, `repeats`, `device`, `threads`.
    """
    device = next(detector.parameters()).device
    images = torch.randint(
        256,
        (1, 3, *image_size),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    ).to(device)
    sizes = torch.tensor([image_size], device=device)

    def forward_and_detect() -> object:
        return detector.detect(detector(images, sizes, PREDICTIONS), sizes)

    with evaluating(detector):
        flops = _flops(forward_and_detect)
        latency = _latency(forward_and_detect, device, repeats)
        with ordinary_convolutions():
            memory = peak_tensor_bytes(forward_and_detect, [*_weights(detector), images, sizes])
    return {
        "parameters": sum(parameter.numel() for parameter in detector.parameters()),
        "flops": flops,
        "flops_per_multiply_add": 2,
        "latency_ms": latency,
        "peak_tensor_mb": round(memory / MEGABYTE, 3),
        "image_size": list(image_size),
        "batch_size": 1,
        "repeats": repeats,
        "device": _name(device),
        "threads": torch.get_num_threads(),
    }


def _weights(detector: Detector) -> list[Tensor]:
    return [
        tensor
        for module in detector.modules()
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    ]


def _flops(run: Callable[[], object]) -> int:
    """Operations in convolutions and matrix products, a multiply-add being two."""
    with ordinary_convolutions(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _latency(run: Callable[[], object], device: torch.device, repeats: int) -> dict[str, float]:
    """Milliseconds of one call: median, 10th and 90th percentile."""
    for _ in range(WARM_UP):
        _milliseconds(run, device)
    times = [_milliseconds(run, device) for _ in range(repeats)]
    tenths = statistics.quantiles(times, n=10, method="inclusive") if repeats > 1 else times
    spread = {"median": statistics.median(times), "low": tenths[0], "high": tenths[-1]}
    return {name: round(value, 4) for name, value in spread.items()}


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return (time.perf_counter() - start) * 1e3


def wait(device: torch.device) -> None:
    """Until the device has done what it was given; a CPU has when the call returns."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class _LiveTensors(TorchDispatchMode):
    """Adds up the memory of tensors from the call that makes it to the end of the last view of it.

    The allocators' own caches and the libraries' scratch space are not in it, so the figure is the
    same on every run and every device.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._live = WeakIdKeyDictionary({tensor.untyped_storage(): 0 for tensor in known})

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        pytree.tree_map_only(Tensor, self._watch, result)
        return result

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._live:
            self._live[storage] = storage.nbytes()
            self._add(storage.nbytes())
            weakref.finalize(storage, self._add, -storage.nbytes())

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def peak_tensor_bytes(run: Callable[[], object], known: Sequence[Tensor]) -> int:
    """The most bytes of tensors alive at once while something runs, beside those that are known."""
    tensors = _LiveTensors(known)
    with tensors:
        run()
    return tensors.peak


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type
