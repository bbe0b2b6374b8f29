"""Other copies of a checkpoint: published, or saved in the midst of training."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.golden_cases.case import MismatchError

from detdistill.interop import mmdet

ORIGINAL = "checkpoint.pth"


def run(file: Path) -> None:
    """The copy must hold the architecture and the weights of a checkpoint beside its folder."""
    originals = sorted(file.parent.parent.glob(f"*/{ORIGINAL}"))
    copy = mmdet.load(file).detector
    for original in originals:
        detector = mmdet.load(original).detector
        if detector.architecture == copy.architecture:
            ours, theirs = detector.state_dict(), copy.state_dict()
            wrong = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
            if wrong:
                raise MismatchError(f"{len(wrong)} tensors differ, {wrong[0]} first")
            return
    raise MismatchError(f"no {ORIGINAL} beside its folder is of this architecture")
