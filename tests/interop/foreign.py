"""MMDetection's checkpoints for tests: a genuine one, and what else may be made of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from detdistill.interop import unpickle

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
GFL = FIXTURES / "crosskd_gfl/teacher.pth"
TENSORS = 367
"""That a detector needs."""
CLASSES = ("apple", "bolt", "cup", "duck", "egg")
Change = Callable[[dict[str, Any]], Mapping[str, Any]]


def published() -> dict[str, Any]:
    """What `publish_model.py` leaves of it."""
    content = unpickle.read(GFL)
    return {"meta": content["meta"], "state_dict": content["state_dict"]}


def changed(folder: Path, change: Change, *, zipped: bool = True) -> Path:
    """A file with something else in it."""
    file = folder / "changed.pth"
    torch.save(change(published()), file, _use_new_zipfile_serialization=zipped)
    return file


def legacy(folder: Path) -> Path:
    """The published checkpoint in torch's older format."""
    return changed(folder, lambda content: content, zipped=False)


def with_config(folder: Path, old: str, new: str) -> Path:
    """A file whose config says something else."""

    def change(content: dict[str, Any]) -> dict[str, Any]:
        assert content["meta"]["cfg"].count(old) >= 1
        content["meta"]["cfg"] = content["meta"]["cfg"].replace(old, new, 1)
        return content

    return changed(folder, change)


def of_2x(content: dict[str, Any]) -> dict[str, Any]:
    """As 2.x wrote it: other keys, the pixels' statistics in the pipeline, a copy for averaging."""
    meta, state = content["meta"], content["state_dict"]
    start = meta["cfg"].index("    data_preprocessor=dict(")
    end = meta["cfg"].index("    neck=dict(")
    norm = "img_norm_cfg = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)\n"
    text = norm + meta["cfg"][:start] + meta["cfg"][end:]
    copies = {f"ema_{name.replace('.', '_')}": tensor for name, tensor in state.items()}
    return {
        "meta": {"config": text, "CLASSES": meta["dataset_meta"]["classes"], "epoch": 12},
        "state_dict": OrderedDict({**state, **copies}),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
    }


def averaged(content: dict[str, Any]) -> dict[str, Any]:
    """In the midst of a training of 3.x with averaged weights."""
    raw = {f"module.{name}": torch.zeros_like(t) for name, t in content["state_dict"].items()}
    return {
        **content,
        "optimizer": {"state": {}, "param_groups": []},
        "param_schedulers": [{"last_step": 3}],
        "ema_state_dict": OrderedDict({"steps": torch.tensor(3), **raw}),
    }
