"""Exports a detector, and measures what a coarser precision costs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from detdistill import data as datasets
from detdistill.cli import ready
from detdistill.data import Dataset
from detdistill.errors import UserError
from detdistill.evaluate import Detector, evaluate_detector
from detdistill.files import require_writable
from detdistill.interop import checkpoint as checkpoints
from detdistill.interop.onnx import write

MEGABYTE = 1e6


def export(
    checkpoint: str,
    out: Path,
    *,
    raw: bool,
    precision: write.Precision,
    data: str | None,
    split: str,
    images: int,
    skippable: float,
    overwrite: bool,
) -> dict[str, Any]:
    """See `verbs.export`.

    Raises:
        UserError: the file's ending is unknown or it is there already, settings exclude each
            other, or the export fails.
    """
    require_writable(out)
    is_weights = out.suffix == ".safetensors"
    made = [out, checkpoints.card_path(out)] if is_weights else [out]
    lost = [file for file in made if file.exists()]
    if lost and not overwrite:
        raise UserError(f"There is a file {lost[0]} already: --overwrite replaces it.")
    if is_weights:
        if raw or precision != "fp32":
            raise UserError("--raw and --precision are for .onnx files; this one holds weights.")
        checkpoints.copy(checkpoint, out)
        return _described(out)
    if out.suffix != ".onnx":
        raise UserError(f"--out {out}: the name must end in .onnx or .safetensors.")
    if raw and precision != "fp32":
        raise UserError(f"The AP of {precision} cannot be measured with --raw: leave one out.")
    write.require_packages()
    detector, resize = ready.load(checkpoint)
    data = data or ready.data_of(checkpoint)
    decode = precision != "fp32"
    dataset = datasets.open(data, split, resize=resize, skippable=skippable, decode=decode)
    pictures = [dataset[i].image for i in range(min(images, len(dataset)))]
    metrics = {} if precision == "fp32" else {"PyTorch": _measured(detector, dataset)}
    exported = write.export(checkpoint, out, pictures, raw=raw, precision=precision)
    if precision != "fp32":
        metrics[precision] = _measured(ready.load(str(out))[0], dataset)
    return {
        **_described(out),
        "precision": precision,
        "differences": asdict(exported.differences),
        "metrics": metrics,
    }


def _measured(detector: Detector, dataset: Dataset) -> dict[str, Any]:
    return evaluate_detector(detector, dataset)[0].to_dict()


def _described(out: Path) -> dict[str, Any]:
    return {"file": str(out), "megabytes": out.stat().st_size / MEGABYTE}
