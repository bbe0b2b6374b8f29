"""What was measured since the last line of the log; it stays on the device until it is read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detdistill.errors import UserError
from detdistill.train.step import Losses


class NonFiniteError(UserError):
    """A loss or a gradient is not a number; the message names it, the step and the images."""


class Window:
    """Losses of every micro-batch and gradient norms of every step since `clear`."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._losses: list[Tensor] = []
        self._ids: list[Tensor] = []
        self._steps: list[int] = []
        self._norms: list[Tensor] = []

    def __len__(self) -> int:
        """How many optimizer steps there are in it."""
        return len(self._norms)

    def add(self, losses: Losses, ids: Tensor, step: int) -> None:
        """Takes in a micro-batch of optimizer step `step`."""
        self.names = tuple(losses)
        self._losses.append(torch.stack([loss.detach().float() for loss in losses.values()]))
        self._ids.append(ids)
        self._steps.append(step)

    def close_step(self, norm: Tensor) -> None:
        """Takes in the norm of the gradient, the same on every rank."""
        self._norms.append(norm.detach())

    def clear(self) -> None:
        """Starts the next window."""
        for column in (self._losses, self._ids, self._steps, self._norms):
            column.clear()

    def is_sound(self) -> bool:
        """Whether every gradient was finite; waits for the device."""
        return not self._norms or bool(torch.stack(self._norms).isfinite().all())

    def mean_losses(self) -> Tensor:
        """(T,) in the order of `names`."""
        return torch.stack(self._losses).mean(dim=0)

    def mean_norm(self) -> float:
        """Of the gradients that are finite, before clipping."""
        norms = torch.stack(self._norms)
        return float(norms[norms.isfinite()].mean().nan_to_num())

    def complaint(self) -> str | None:
        """A sentence about the first losses that are not finite, if there are any."""
        for row, ids, step in zip(self._losses, self._ids, self._steps, strict=True):
            bad = [
                f"{name} is {value}"
                for name, value, fine in zip(
                    self.names, row.tolist(), row.isfinite().tolist(), strict=True
                )
                if not fine
            ]
            if bad:
                images = ", ".join(map(str, ids.tolist()))
                return f"At step {step} the loss {' and '.join(bad)} (images {images})."
        return None

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "names": list(self.names),
            "losses": list(self._losses),
            "ids": list(self._ids),
            "steps": list(self._steps),
            "norms": list(self._norms),
        }

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """What `state` gave."""
        self.names = tuple(state["names"])
        self._losses = [tensor.to(device) for tensor in state["losses"]]
        self._ids = list(state["ids"])
        self._steps = list(state["steps"])
        self._norms = [tensor.to(device) for tensor in state["norms"]]
