"""One recorded case: its inputs, its settings, and the comparison with what was recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detdistill import losses


class MismatchError(Exception):
    """A number differs, or was not understood; the message is one line."""


@dataclass
class Case:
    """The inputs of a recorded case in one precision, and what has been asked of it."""

    arrays: Mapping[str, np.ndarray]
    dtype: torch.dtype
    settings: dict[str, Any]
    leaves: dict[str, Tensor] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str) -> Tensor:
        """An input; floating numbers in the precision of the run."""
        tensor = torch.from_numpy(np.array(self.arrays[key]))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def optional(self, key: str) -> Tensor | None:
        """An input that not every case has."""
        return self[key] if key in self.arrays else None

    def leaf(self, key: str) -> Tensor:
        """An input whose gradient will be compared."""
        self.leaves[key] = self[key].requires_grad_()
        return self.leaves[key]

    def levels(self, name: str) -> tuple[Tensor, ...]:
        """Inputs `name_0`, `name_1`, ..."""
        return tuple(self[key] for key in self.numbered(name))

    def leaf_levels(self, name: str) -> tuple[Tensor, ...]:
        """The same, and their gradients will be compared."""
        return tuple(self.leaf(key) for key in self.numbered(name))

    def numbered(self, name: str) -> list[str]:
        """The keys `name_0`, `name_1`, ... that exist."""
        keys = []
        while f"{name}_{len(keys)}" in self.arrays:
            keys.append(f"{name}_{len(keys)}")
        return keys

    def setting(self, name: str) -> Any:
        """A hyper-parameter that was recorded with the case."""
        self.used.add(name)
        if name not in self.settings:
            raise MismatchError(f"the case has no hyper-parameter {name!r}")
        return self.settings[name]

    def fixed(self, **values: object) -> None:
        """Checks hyper-parameters that cannot be chosen here."""
        for name, value in values.items():
            if self.setting(name) != value:
                raise MismatchError(
                    f"hyper-parameter {name} is {self.setting(name)!r}, only {value!r} is possible"
                )

    def finish(self) -> None:
        """Fails if a hyper-parameter had no effect."""
        ignored = sorted(set(self.settings) - self.used)
        if ignored:
            raise MismatchError(f"unknown hyper-parameters {', '.join(ignored)}")


def reduced(case: Case, loss: Tensor) -> Tensor:
    """MMDetection's mean of a loss: over what `avg_factor` says, or over all if it is null."""
    weight, divisor = case.optional("weight"), case.setting("avg_factor")
    if divisor is None:
        return (loss if weight is None else loss * weight).mean()
    return losses.weighted_mean(loss, weight, divisor)


Family = Callable[[Case], Mapping[str, Tensor]]
"""Computes a case: named results, `loss` among them, to be compared with `out_...`."""


def check(path: Path, family: Family) -> None:
    """Runs a case in float32, and in float64 where that was recorded too.

    Raises:
        MismatchError: something differs; the message names the largest difference.
    """
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    _check_precision(arrays, family, torch.float32, "", rtol=1e-4, atol=1e-6)
    if "out64_loss" in arrays:
        _check_precision(arrays, family, torch.float64, "64", rtol=1e-6, atol=1e-9)


def _check_precision(
    arrays: Mapping[str, np.ndarray],
    family: Family,
    dtype: torch.dtype,
    suffix: str,
    *,
    rtol: float,
    atol: float,
) -> None:
    case = Case(arrays, dtype, json.loads(str(arrays["hp"])) if "hp" in arrays else {})
    results = dict(family(case))
    case.finish()
    if "loss" in results and results["loss"].requires_grad:
        results["loss"].sum().backward()
    expected = _expected(arrays, results, case, suffix)
    differences = {
        key: found
        for key, (actual, wanted) in expected.items()
        if (found := _difference(actual, wanted, rtol, atol)) is not None
    }
    if differences:
        key, largest = max(differences.items(), key=lambda item: item[1])
        raise MismatchError(f"{key} differs by {largest:.3g} ({len(differences)} values differ)")


def _expected(
    arrays: Mapping[str, np.ndarray], results: Mapping[str, Tensor], case: Case, suffix: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What was computed and what was recorded, by the key of the recording."""
    pairs, out, grad = {}, f"out{suffix}_", f"grad{suffix}_"
    for key, wanted in arrays.items():
        if key.startswith(out):
            name = key.removeprefix(out)
            total, number = name.rpartition("_")[::2]
            if name in results:
                pairs[key] = (_numpy(results[name]), wanted)
            elif total in results and number.isdigit():
                parts = [arrays[k] for k in case.numbered(out + total)]
                pairs[f"sum of {out}{total}"] = (_numpy(results[total]), np.sum(parts, axis=0))
            else:
                raise MismatchError(f"nothing computes {key}")
        elif key.startswith(grad) and wanted.dtype.kind == "f":
            pairs[key] = (_gradient(case, key.removeprefix(grad)), wanted)
    if "loss" in results and out + "loss" not in pairs:
        raise MismatchError(f"{out}loss is not recorded")
    return pairs


def _gradient(case: Case, name: str) -> np.ndarray:
    if name not in case.leaves:
        raise MismatchError(f"no gradient is computed for {name}")
    leaf = case.leaves[name]
    return _numpy(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def _difference(actual: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> float | None:
    """The largest difference, or None if it is within tolerance; whole numbers must be equal."""
    if actual.shape != wanted.shape:
        return float("inf")
    if wanted.dtype.kind != "f":
        rtol = atol = 0.0
    actual, wanted = actual.astype(np.float64), wanted.astype(np.float64)
    if np.allclose(actual, wanted, rtol=rtol, atol=atol, equal_nan=True):
        return None
    gap = np.abs(actual - wanted)
    return float(np.nan_to_num(gap, nan=np.inf).max())
