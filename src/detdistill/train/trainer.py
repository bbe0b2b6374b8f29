"""Moves the weights, one optimizer step at a time. It knows no files and no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from detdistill.detectors import Detector
from detdistill.structures import Batch, DetectorOutput
from detdistill.train import optim
from detdistill.train.engine import agree
from detdistill.train.experiment import Experiment
from detdistill.train.seeds import derived
from detdistill.train.step import Losses, TrainStep
from detdistill.train.teacher_cache import TeacherCache
from detdistill.train.window import NonFiniteError, Window
from detdistill.winograd import quicken

ADVICE = (
    "The optimizer step was not taken; a checkpoint, if there is one yet, holds good weights. "
    "Try a smaller learning rate, a smaller weight for this loss, or precision fp32."
)

LEAST_SCALE = 2.0**-10
"""Of losses in fp16; it is halved whenever a gradient is not finite, so by then hardly one was."""

MAP_DIMENSIONS = 4

Structure = TypeVar("Structure")


class Trainer:
    """A step, its optimizer and its average, on one rank.

    Every micro-batch starts from a random state that is derived from seed, step and rank. So
    there is no random state to save, and what a method draws changes nothing for the student.

    Args:
        step: moved to the device, wrapped for several ranks where there are some.
        experiment: optimizer, precision, accumulation, seed.
        engine: the device and the other ranks.
    """

    def __init__(self, step: TrainStep, experiment: Experiment, engine: Accelerator) -> None:
        self.step = _placed(step, engine.device, experiment).train()
        self.done = 0
        self.window = Window()
        self._experiment = experiment
        self._engine = engine
        decay = experiment.optimizer.ema
        self._average = None if decay is None else optim.Average(step.student, decay)
        self._optimizer = optim.build(step, experiment.optimizer)
        self._module: nn.Module
        self._module, self._driver = engine.prepare(step, self._optimizer)
        self.cache: TeacherCache | None = None
        """Of the teacher's outputs, where they are kept."""

    @property
    def detector(self) -> Detector:
        """What is evaluated and saved: the averaged student if there is one, else the student."""
        return self._average.detector if self._average else self.step.student

    @property
    def learning_rate(self) -> float:
        """That of the next step; of the last one when all are done."""
        steps = self._experiment.steps
        return optim.learning_rate(min(self.done, steps - 1), steps, self._experiment.optimizer)

    def use_cache(self, folder: Path, room: float) -> None:
        """From now on, keeps the teacher's answers in a folder, `room` bytes more at the most."""
        self.cache = TeacherCache(folder, self._ask, self.step.reads, room)

    def place(self, structure: Structure) -> Structure:
        """A batch or an output on the device, its maps laid out as the weights are."""
        layout = _layout(channels_last=self._experiment.channels_last)

        def move(tensor: Tensor) -> Tensor:
            moved = tensor.to(self._engine.device, non_blocking=True)
            return moved.to(memory_format=layout) if moved.ndim == MAP_DIMENSIONS else moved

        placed: Structure = pytree.tree_map_only(Tensor, move, structure)
        return placed

    def advance(self, batches: Iterator[Batch]) -> None:
        """One optimizer step on the next micro-batches.

        Raises:
            NonFiniteError: on a CPU at once, on other devices by `check`.
        """
        optim.set_learning_rate(self._optimizer, self.learning_rate)
        count = self._experiment.accumulate
        for micro in range(count):
            is_last = micro == count - 1
            with nullcontext() if is_last else self._engine.no_sync(self._module):
                self._descend(next(batches), micro)
        self._move()
        self.done += 1
        if self._engine.device.type == "cpu":
            self.check()

    def _descend(self, batch: Batch, micro: int) -> None:
        """Adds the gradient of a micro-batch."""
        settings = self._experiment
        set_seed(derived(settings.seed, self.done, micro, self._engine.process_index))
        progress = self.done / settings.steps
        said = self.place(self.cache(batch)) if self.cache else None
        losses: Losses = self._module(self.place(batch), self.done, progress, said)
        self.window.add(losses, batch.ids, self.done + 1)
        self._engine.backward(_poisoned(total(losses)) / settings.accumulate)

    def _ask(self, batch: Batch) -> DetectorOutput:
        """What the teacher says of a batch that is not on the device yet."""
        with self._engine.autocast():
            return self.step.ask(self.place(batch))

    def _move(self) -> None:
        """Student and methods are clipped apart, so that methods of weight 0 change nothing."""
        self._engine.unscale_gradients()
        parts = [list(part.parameters()) for part in (self.step.student, self.step.methods)]
        norms = [optim.clip(part, self._experiment.optimizer.clip) for part in parts if part]
        if self._engine.scaler is None:
            optim.skip_where(self._optimizer, ~torch.stack(norms).isfinite().all())
        self._driver.step()
        self._driver.zero_grad()
        self.window.close_step(norms[0] + 0 * torch.stack(norms).sum())
        if self._average:
            self._average.update(self.step.student, self.done)

    def check(self) -> None:
        """Raises if a loss or a gradient since the last `read` was not finite; on every rank.

        Raises:
            NonFiniteError: with the name of the loss, the step and the images.
        """
        if self.window.is_sound():
            return
        complaint = agree(self._engine, self.window.complaint())
        if complaint:
            raise NonFiniteError(f"{complaint} {ADVICE}")
        if self._engine.scaler is None or self._engine.scaler.get_scale() < LEAST_SCALE:
            raise NonFiniteError(
                f"By step {self.done} a gradient was not finite although every loss was. {ADVICE}"
            )

    def read(self) -> tuple[dict[str, float], float]:
        """Mean losses over the steps since the last call and over ranks, and the gradient norm."""
        self.check()
        means: Tensor = self._engine.reduce(self.window.mean_losses(), "mean")
        losses = dict(zip(self.window.names, means.tolist(), strict=True))
        norm = self.window.mean_norm()
        self.window.clear()
        return losses, norm

    def state(self) -> dict[str, Any]:
        """All that decides how the training goes on."""
        return {
            "done": self.done,
            "step": self.step.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average and self._average.detector.state_dict(),
            "scaler": self._engine.scaler and self._engine.scaler.state_dict(),
            "window": self.window.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.done = state["done"]
        self.step.load_state_dict(state["step"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average:
            self._average.detector.load_state_dict(state["average"])
        if self._engine.scaler and state["scaler"]:
            self._engine.scaler.load_state_dict(state["scaler"])
        self.window.restore(state["window"], self._engine.device)


def total(losses: Losses) -> Tensor:
    """The one number that is minimised."""
    return torch.stack(list(losses.values())).sum()


def _poisoned(loss: Tensor) -> Tensor:
    """The same loss; if it is not finite, so is every gradient, and every rank hears of it."""
    return loss * (1 + 0 * loss.detach())


def _placed(step: TrainStep, device: torch.device, experiment: Experiment) -> TrainStep:
    step.to(device)
    step.to(memory_format=_layout(channels_last=experiment.channels_last))
    if _multiplies_less(experiment, device):
        quicken(step)
        if step.teacher:
            quicken(step.teacher.detector)
    return step


def _multiplies_less(experiment: Experiment, device: torch.device) -> bool:
    """Whether Winograd's convolutions are wanted, and can be faster."""
    return experiment.winograd and not experiment.compile and device.type == "cpu"


def _layout(*, channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format
