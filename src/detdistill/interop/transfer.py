"""Another framework's weights into a detector of ours, and an account of what went where."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from detdistill import run_files
from detdistill.detectors import Detector
from detdistill.errors import UserError
from detdistill.interop import checkpoint

Rules = Sequence[tuple[str, str]]
"""Patterns of the beginnings of foreign names, and what stands there in ours. The first counts."""

COUNTERS = "num_batches_tracked"
"""BatchNorm's buffers that nothing reads; not every framework has them."""
SHOWN = 5


class Place(NamedTuple):
    """Where a foreign tensor belongs."""

    name: str
    """A tensor of ours."""
    row: int | None = None
    """Which row of it, if the other framework keeps the rows apart."""

    def within(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The part of ours that it fills."""
        whole = tensors[self.name]
        return whole if self.row is None else whole[self.row]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a file's tensors; foreign names but for `missing`."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """Ours that nothing was given for; they keep the values of a fresh detector."""
    unexpected: tuple[str, ...]
    """That belong nowhere, or are of another shape, which is then said."""
    left_out: tuple[str, ...] = ()
    """What no detector needs, in words."""
    notes: tuple[str, ...] = ()
    """What else is to be known, in sentences."""

    @property
    def complete(self) -> bool:
        """Whether every tensor found its place."""
        return not self.missing and not self.unexpected


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A detector with another framework's weights."""

    detector: Detector
    report: Report
    resize: tuple[int, int] | None = None
    """Lengths of the shorter and the longer side that pictures were scaled to, if known."""

    def save(self, out: Path, *, source: str, overwrite: bool = False) -> Path:
        """Writes a checkpoint of ours.

        Args:
            out: a folder, or a `.safetensors` file.
            source: where the weights come from, for the card.
            overwrite: replace a checkpoint that is there.

        Returns:
            The weights file.

        Raises:
            UserError: a checkpoint is there, or nothing can be written.
        """
        file = destination(out, overwrite=overwrite)
        checkpoint.save(self.detector, file, {"resize": self.resize, "source": source})
        return file


def destination(out: Path, *, overwrite: bool) -> Path:
    """The weights file that `out`, a folder or a `.safetensors` file, stands for.

    Raises:
        UserError: a checkpoint is there, and is not to be replaced.
    """
    file = out if out.suffix == ".safetensors" else out / run_files.STUDENT
    if file.exists() and not overwrite:
        raise UserError(f"There is a checkpoint at {file} already: --overwrite replaces it.")
    return file


def place_of(name: str, rules: Rules, expected: Mapping[str, Tensor]) -> Place | None:
    """Where a foreign tensor belongs among `expected`; None if nowhere."""
    for pattern, ours in rules:
        match = re.match(pattern, name)
        if match:
            renamed = match.expand(ours) + name[match.end() :]
            parent, _, row = renamed.rpartition(".")
            if renamed in expected:
                return Place(renamed)
            is_row = parent in expected and row.isdigit() and int(row) < len(expected[parent])
            return Place(parent, int(row)) if is_row else None
    return None


@torch.no_grad()
def transfer(
    weights: Mapping[str, Tensor], detector: Detector, rules: Rules, *, partial: bool = False
) -> Report:
    """Copies tensors into a detector by name.

    Args:
        weights: foreign names and tensors.
        detector: is changed in place.
        rules: how names translate.
        partial: accept what does not fit, instead of refusing it.

    Raises:
        UserError: tensors are missing, belong nowhere or are of another shape.
    """
    expected = detector.state_dict()
    filled: Counter[str] = Counter()
    loaded, unexpected = [], []
    for name, tensor in weights.items():
        place = place_of(name, rules, expected)
        if place is None:
            unexpected.append(name)
        elif (target := place.within(expected)).shape != tensor.shape:
            unexpected.append(f"{name} {tuple(tensor.shape)}, not {tuple(target.shape)}")
        else:
            target.copy_(tensor)
            loaded.append(name)
            filled[place.name] += target.numel()
    _require_finite(weights)
    report = Report(
        loaded=tuple(loaded),
        missing=tuple(
            name
            for name, tensor in expected.items()
            if filled[name] < tensor.numel() and COUNTERS not in name
        ),
        unexpected=tuple(unexpected),
    )
    if not (report.complete or (partial and loaded)):
        raise UserError(_refusal(report, partial=partial))
    return report


def _require_finite(weights: Mapping[str, Tensor]) -> None:
    wrong = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if wrong:
        raise UserError(
            f"{len(wrong)} tensors hold NaN or infinity ({_some(wrong)}): the training had failed "
            "when this checkpoint was written. Take an earlier one."
        )


def _refusal(report: Report, *, partial: bool) -> str:
    gaps = {"missing": report.missing, "unexpected": report.unexpected}
    words = (f"{len(names)} {what} ({_some(names)})" for what, names in gaps.items() if names)
    remedy = "" if partial else ", or --partial to leave the missing ones as they begin"
    return (
        f"Only {len(report.loaded)} tensors fit: {'; '.join(words)}. Give the config or the preset "
        f"of this checkpoint{remedy}."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
