"""A folder of recorded numbers, and one case of it with what was found to differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.golden_cases.case import MismatchError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detdistill.detectors import Detector
from detdistill.interop import mmdet
from detdistill.interop.mmdet.convert import rules
from detdistill.interop.transfer import place_of
from detdistill.structures import Truth

RAW = {"rtol": 1e-4, "atol": 1e-5}
LOSS = {"rtol": 1e-4, "atol": 1e-6}
GRADIENT = 1e-3
ROUNDING = 1e-5
"""Of a step's largest gradient: what remains where larger ones cancel is not known better."""
EXACT = {"rtol": 0.0, "atol": 0.0}
BOX_ERROR = 0.01
SCORE_ERROR = 1e-4

GIVEN = ("raw", "inputs", "gt_boxes", "gt_labels")
"""Beginnings of the names of what a case was given."""
SHORT_NAMES = {"fpn_lateral0": "neck.lateral_convs.0.conv.weight"}
"""What gradients of weights are called, where it is not the weight's own name."""


@dataclass(frozen=True)
class Folder:
    """`config.json` and `io.npz`; what is not there lies in the folder above or beside it."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.path / "config.json").read_text(encoding="utf-8"))

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.path / "io.npz") as file:
            return {key: file[key] for key in file.files}

    @property
    def cases(self) -> list[str]:
        """Those of which more is recorded than what was given."""
        keys = (key.split(".") for key in self.arrays)
        recorded = {case for case, *name in keys if name and name[0] not in GIVEN}
        return sorted(recorded & set(self.config["cases"]))

    def numbers(self, key: str) -> Tensor:
        """An array of this folder."""
        if key not in self.arrays:
            raise MismatchError(f"{key} is not recorded")
        return torch.from_numpy(np.array(self.arrays[key]))

    def load(self, file: str) -> Detector:
        """The detector in a checkpoint of this folder, or of the next one that has it."""
        holder = next(self.near(file), None)
        if holder is None:
            raise MismatchError(f"there is no {file}")
        return mmdet.load(holder.path / file).detector

    def near(self, file: str) -> Iterator[Folder]:
        """This folder, the one above and those beside it, as far as they have a file."""
        near = [self.path, self.path.parent, *sorted(self.path.parent.iterdir())]
        return (Folder(path) for path in near if (path / file).is_file())


@dataclass
class Recording:
    """One case of a folder; what differs is collected, and so is what nobody asked for."""

    folder: Folder
    case: str
    differences: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What `config.json` says of the case."""
        return self.folder.config["cases"][self.case]

    @cached_property
    def names(self) -> list[str]:
        """What is recorded of the case."""
        prefix = f"{self.case}."
        keys = self.folder.arrays
        return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Tensor:
        """What was recorded, to be compared."""
        self.used.add(name)
        return self.folder.numbers(f"{self.case}.{name}")

    def levels(self, name: str) -> dict[int, Tensor]:
        """`name.0`, `name.1`, ..., as far as they are there."""
        numbered = (n for n in self.names if n.rpartition(".")[0] == name)
        return {int(n.rpartition(".")[2]): self[n] for n in numbered}

    def same(
        self, name: str, actual: Tensor, expected: Tensor, *, rtol: float, atol: float
    ) -> None:
        """Notes a difference beyond the tolerance; NaN equals NaN."""
        if actual.shape != expected.shape:
            self.differences.append(
                f"{name} is of shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
            )
            return
        found, wanted = actual.detach().double(), expected.double()
        if not torch.allclose(found, wanted, rtol=rtol, atol=atol, equal_nan=True):
            gap = (found - wanted).abs().nan_to_num(nan=torch.inf).max()
            self.differences.append(f"{name} differs by {gap:.3g}")

    def same_levels(self, name: str, actual: Sequence[Tensor] | None) -> None:
        """Compares the levels that are recorded."""
        for level, expected in self.levels(name).items():
            if actual is None or level >= len(actual):
                self.differences.append(f"nothing computes {name}.{level}")
            else:
                self.same(f"{name}.{level}", actual[level], expected, **RAW)

    def same_losses(self, found: dict[str, Tensor]) -> None:
        """Compares losses by MMDetection's names, each summed over the levels, and their total."""
        for name in [n for n in self.names if n.startswith("loss.") and n not in self.used]:
            expected = self[name].sum()
            short = name.removeprefix("loss.")
            if short == "total":
                self.same("total loss", torch.stack([*found.values()]).sum(), expected, **LOSS)
            elif short in found:
                self.same(short, found[short], expected, **LOSS)
            else:
                self.differences.append(f"nothing computes {short}")

    def same_gradients(self, detector: Detector) -> None:
        """Compares the norms of all gradients, and the gradients that were kept."""
        gradients = {name: p.grad for name, p in detector.named_parameters()}
        held = {n: torch.zeros(()) if g is None else g for n, g in gradients.items()}
        norms = {name: norm or 0.0 for name, norm in self.facts.get("grad_norms", {}).items()}
        largest = torch.tensor([0.0, *norms.values()]).nan_to_num().max()
        tolerance = {"rtol": GRADIENT, "atol": ROUNDING * float(largest)}
        for name, norm in norms.items():
            found = self._gradient(name, detector, held).norm()
            self.same(f"gradient norm of {name}", found, torch.tensor(norm), **tolerance)
        for name in [n for n in self.names if n.startswith("grad.")]:
            short = name.removeprefix("grad.")
            found = self._gradient(SHORT_NAMES.get(short, short), detector, held)
            self.same(name, found.view_as(self[name]), self[name], **tolerance)

    def _gradient(self, name: str, detector: Detector, held: dict[str, Tensor]) -> Tensor:
        place = place_of(name, rules(detector.architecture), dict(detector.named_parameters()))
        if place is None:
            raise MismatchError(f"nothing here is what MMDetection calls {name}")
        return held[place.name] if not held[place.name].ndim else place.within(held)

    def images(self, detector: Detector) -> Tensor:
        """The batch (B, 3, H, W) that the detector was given, before it normalises it."""
        normalised = self.pictures["inputs"]
        raw = [f"raw.{i}" for i in range(len(normalised))]
        if all(name in self.pictures for name in raw):
            batch = torch.zeros(normalised.shape, dtype=torch.uint8)
            for slot, name in zip(batch, raw, strict=True):
                image = self.pictures[name]
                slot[:, : image.shape[1], : image.shape[2]] = image.flip(0)
            return batch
        pixels = normalised * detector.std + detector.mean
        return pixels.flip(1) if detector.architecture.preprocessing.bgr else pixels

    def same_inputs(self, detector: Detector) -> None:
        """Compares what the detector sees with what MMDetection's saw."""
        if "inputs" in self:
            seen = detector.normalise(self.images(detector), self.truth().sizes)
            self.same("inputs", seen, self["inputs"], **RAW)

    def truth(self) -> Truth:
        """The objects of the batch."""
        metas = self.facts.get("metas") or self.pictures.facts["metas"]
        sizes = torch.tensor([meta["img_shape"] for meta in metas])
        holder = self if "gt_boxes.0" in self else self.pictures
        return padded(
            [holder[f"gt_boxes.{i}"].reshape(-1, 4) for i in range(len(sizes))],
            [holder[f"gt_labels.{i}"] for i in range(len(sizes))],
            sizes,
        )

    @cached_property
    def pictures(self) -> Recording:
        """The recording with the pictures of this one, which other folders and case A may share."""
        folders = list(self.folder.near("io.npz"))
        sharing = (Recording(folder, case) for case in (self.case, "A") for folder in folders)
        found = next((recording for recording in sharing if "inputs" in recording), None)
        if found is None:
            raise MismatchError("no inputs are recorded")
        return found

    def finish(self) -> None:
        """Fails if anything differs, or was never compared."""
        ignored = [n for n in self.names if n not in self.used and not n.startswith(GIVEN)]
        self.differences += [f"nothing compares {name}" for name in ignored]
        if self.differences:
            more = len(self.differences) - 3
            rest = f"; and {more} more" if more > 0 else ""
            raise MismatchError("; ".join(self.differences[:3]) + rest)


def padded(
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    sizes: Tensor,
    crowd: Sequence[Tensor] | None = None,
) -> Truth:
    """The objects of several images, and the regions of each that are to be ignored."""
    crowd = crowd or [boxes[0].new_zeros((0, 4))] * len(boxes)
    pairs = list(zip(boxes, crowd, strict=True))
    kinds = [torch.tensor([1] * len(b) + [2] * len(c)) for b, c in pairs]
    kind = pad_sequence(kinds, batch_first=True)
    classes = [torch.cat([k, k.new_zeros(len(c))]) for k, c in zip(labels, crowd, strict=True)]
    return Truth(
        boxes=pad_sequence([torch.cat(pair) for pair in pairs], batch_first=True),
        labels=pad_sequence(classes, batch_first=True),
        valid=kind == 1,
        crowd=kind == 2,
        sizes=sizes,
    )
