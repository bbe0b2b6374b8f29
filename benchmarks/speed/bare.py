"""The arithmetic that a step cannot avoid: bare networks, and layers that a method runs again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from detdistill.detectors import Detector
from detdistill.structures import EVERYTHING, Batch, Reads
from detdistill.train.frozen import Frozen
from detdistill.train.step import TrainStep

REENTRIES = ("resume", "classify", "pool")
"""What a head offers to methods."""


def forward_backward(student: Detector, batch: Batch, autocast: Callable[[], Any]) -> None:
    """A student's outputs and the gradient of their sum: no assignment, losses or optimizer."""
    with autocast():
        output = student(batch.images, batch.truth.sizes, EVERYTHING)
    _sum(output.predictions).backward()
    student.zero_grad()


def forward(teacher: Frozen, batch: Batch, reads: Reads, autocast: Callable[[], Any]) -> None:
    """What is read of a teacher."""
    with autocast():
        teacher(batch.images, batch.truth.sizes, reads)


def beside(
    step: TrainStep, batch: Batch, advance: Callable[[], object], autocast: Callable[[], Any]
) -> Callable[[], None]:
    """A step that finds the outputs of both networks at hand: all that it does beside them.

    That is placing the batch, assignment, losses, what the methods do, layers that they run again,
    the gradient of all this as far as the outputs, and bookkeeping; the optimizer moves nothing.
    """
    with autocast():
        said = step.ask(batch) if step.teacher else None
        output = step.student(batch.images, batch.truth.sizes, step.reads | EVERYTHING)
    output = pytree.tree_map_only(Tensor, _fresh, output)

    def run() -> None:
        leaves = pytree.tree_map_only(Tensor, _fresh, output)
        with (
            patch.object(step.student, "forward", lambda *_: leaves),
            patch.object(step, "ask", lambda *_: said),
        ):
            advance()

    return run


@dataclass(frozen=True, kw_only=True)
class Call:
    """A layer that a method ran, and on what."""

    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    settings: dict[str, Any]
    with_gradient: bool

    def again(self) -> None:
        """Forward, and backward from the sum of the outputs if there was a gradient."""
        arguments = pytree.tree_map_only(Tensor, _fresh, self.arguments)
        with torch.set_grad_enabled(self.with_gradient):
            output = self.run(*arguments, **self.settings)
            if self.with_gradient:
                _sum(output).backward()


def reentries(step: TrainStep, batch: Batch) -> list[Call]:
    """The layers that methods run in a step: of the heads, and their own."""
    calls: list[Call] = []
    with ExitStack() as stack:
        for head in (step.student.head, step.teacher.head if step.teacher else None):
            for verb in REENTRIES:
                if hasattr(head, verb):
                    stack.enter_context(_recorded(head, verb, calls))
        for layer in _own_layers(step.methods):
            stack.enter_context(_recorded(layer, "forward", calls))
        step(batch)
    return calls


def replay(calls: list[Call]) -> None:
    """All of them once more."""
    for call in calls:
        call.again()


def _own_layers(methods: nn.ModuleDict) -> Iterator[nn.Module]:
    """The children of methods that have parameters; of lists, their entries."""
    for method in methods.values():
        for child in method.children():
            for layer in child if isinstance(child, nn.ModuleList) else (child,):
                if any(True for _ in layer.parameters()):
                    yield layer


@contextmanager
def _recorded(owner: Any, name: str, calls: list[Call]) -> Iterator[None]:  # noqa: ANN401
    """Notes the calls of a method of some object that do not come from another noted one."""
    run = getattr(owner, name)

    def noted(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        enabled = torch.is_grad_enabled() and _has_history((arguments, settings, owner))
        kept = pytree.tree_map_only(Tensor, _fresh, arguments)
        before = len(calls)
        result = run(*arguments, **settings)
        del calls[before:]
        calls.append(Call(run=run, arguments=kept, settings=settings, with_gradient=enabled))
        return result

    with patch.object(owner, name, noted):
        yield


def _has_history(values: object) -> bool:
    """Whether a gradient goes to a tensor, or to a parameter of a module."""
    leaves = pytree.tree_leaves(values)
    modules = (leaf for leaf in leaves if isinstance(leaf, nn.Module))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    tensors += [parameter for module in modules for parameter in module.parameters()]
    return any(tensor.requires_grad for tensor in tensors)


def _fresh(tensor: Tensor) -> Tensor:
    """The same numbers, to which a gradient goes if it went to those."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _sum(outputs: object) -> Tensor:
    leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return torch.stack([leaf.float().sum() for leaf in leaves if leaf.requires_grad]).sum()
