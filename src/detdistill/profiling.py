"""Where the time of a training step goes, from torch's profiler.

Parts are marked while they are looked at, and only then, so a training pays nothing for it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from torch.autograd.profiler_util import DeviceType, FunctionEvent  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function

from detdistill.detectors.dense import DenseDetector
from detdistill.structures import Batch
from detdistill.train.trainer import Trainer

MARK = "detdistill: "
BACKWARD = "autograd::engine::evaluate_function"
LOSSES = ("detdistill.losses", "detdistill.focal")
LOSS_ENDINGS = ("_loss", "_error", "_bce")
REST = "everything else"


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one part of a step costs."""

    part: str
    forward_ms: float
    backward_ms: float
    share: float
    """Of the whole step."""


def shares(trainer: Trainer, batches: Iterator[Batch], steps: int) -> tuple[Share, ...]:
    """Takes optimizer steps, and says what each part of them costs, the largest first.

    The profiler itself takes time, so that milliseconds are more than in a training. What a part
    costs in the backward pass is what the gradients of its own operations take.
    """
    activities = [ProfilerActivity.CPU]
    on_gpu = next(trainer.step.student.parameters()).is_cuda
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with ExitStack() as stack:
        for owner, name, part in _parts(trainer):
            stack.enter_context(_marked(owner, name, part))
        found = stack.enter_context(profile(activities=activities))
        for _ in range(steps):
            trainer.advance(_watched(batches))
    events = sorted(found.events() or [], key=lambda event: event.time_range.start)
    return _shares(events, steps, on_gpu=on_gpu)


def _parts(trainer: Trainer) -> Iterator[tuple[Any, str, str]]:
    """What is marked: an owner, the name of its function, and what it is called in the table."""
    step = trainer.step
    for name, child in step.student.named_children():
        yield child, "forward", f"student, {name}"
    yield step.student, "criterion", "student, losses"
    if isinstance(step.student, DenseDetector):
        yield step.student, "assigner", "student, assignment"
        yield from _losses(step.student.family_criterion)
    if step.teacher is not None:
        yield step.teacher, "forward", "teacher"
    for name, method in step.methods.items():
        yield method, "forward", f"method {name}"
    yield trainer, "_move", "optimizer"


def _losses(criterion: Callable[..., object]) -> Iterator[tuple[Any, str, str]]:
    """The losses that a criterion's module calls."""
    while isinstance(criterion, partial):
        criterion = criterion.func
    module = sys.modules[criterion.__module__]
    for name, function in vars(module).copy().items():
        if getattr(function, "__module__", None) in LOSSES and name.endswith(LOSS_ENDINGS):
            yield module, name, f"student, {name}"


@contextmanager
def _marked(owner: Any, name: str, part: str) -> Iterator[None]:  # noqa: ANN401 - any object
    """Inside, calls of a function that an object has are marked as a part."""
    own, run = vars(owner).get(name), getattr(owner, name)

    @wraps(run)
    def marked(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        with record_function(MARK + part):
            return run(*arguments, **settings)

    setattr(owner, name, marked)
    try:
        yield
    finally:
        delattr(owner, name)
        if own is not None:
            setattr(owner, name, own)


def _watched(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches; loading them is marked."""
    while True:
        with record_function(MARK + "data"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _shares(events: list[FunctionEvent], steps: int, *, on_gpu: bool) -> tuple[Share, ...]:
    forward, backward = _totals(events, on_gpu=on_gpu)
    whole = sum(forward.values()) + sum(backward.values())
    found = [
        Share(
            part=part,
            forward_ms=forward[part] / steps / 1e3,
            backward_ms=backward[part] / steps / 1e3,
            share=(forward[part] + backward[part]) / whole if whole else 0.0,
        )
        for part in {**forward, **backward}
    ]
    return tuple(sorted(found, key=lambda share: -share.share))


def _totals(
    events: list[FunctionEvent], *, on_gpu: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of each part, forward and backward."""
    forward: dict[str, float] = defaultdict(float)
    backward: dict[str, float] = defaultdict(float)
    made_by: dict[int, str] = {}
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue  # kernels and marks on a GPU, which their operators have been charged with
        took = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        gradient = _ancestor(event, BACKWARD)
        if gradient is not None:
            backward[made_by.get(gradient.sequence_nr, REST)] += took
            continue
        mark = _ancestor(event, MARK)
        part = REST if mark is None else mark.name.removeprefix(MARK)
        forward[part] += took
        if event.sequence_nr >= 0:
            made_by[event.sequence_nr] = part  # the last one with a number made the gradient's node
    return forward, backward


def _ancestor(event: FunctionEvent, prefix: str) -> FunctionEvent | None:
    """The innermost event with such a name that this one is or lies in."""
    found: FunctionEvent | None = event
    while found is not None and not found.name.startswith(prefix):
        found = found.cpu_parent
    return found
