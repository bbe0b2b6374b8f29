"""A GPU that is not there, to see without one where tensors are and what waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from detdistill.detectors.rpn import Proposing


@contextmanager
def made_up() -> Iterator[torch.device]:
    """Inside, tensors have a shape and a device, and no numbers.

    Whatever mixes those of the CPU and of the GPU raises, and whatever has to know a number or
    copies one: all but the few that are known to wait for the GPU, which answer anything here.
    """
    with ExitStack() as stack:
        for place, answer in KNOWN_TO_WAIT.items():
            stack.enter_context(patch(f"detdistill.{place}", answer))
        stack.enter_context(patch.object(Tensor, "new_tensor", _refused))
        stack.enter_context(FakeTensorMode())
        yield torch.device("cuda")


def _refused(*_: object, **__: object) -> Tensor:
    raise AssertionError("the GPU waits for numbers of the host")


def _all_alive(_corners: Tensor, alive: Tensor, _threshold: float) -> Tensor:
    return alive


def _first_proposals(boxes: Tensor, _s: Tensor, _l: Tensor, settings: Proposing) -> Tensor:
    return boxes[: settings.per_image]


def _first_objects(paid: Tensor) -> Tensor:
    return torch.zeros_like(paid[..., 0], dtype=torch.long)


KNOWN_TO_WAIT = {
    "masks.suppression.by_image": _all_alive,
    "detectors.rpn._suppressed": _first_proposals,
    "detectors.matching._cheapest": _first_objects,
}
