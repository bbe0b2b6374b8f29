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
FULL: write.Precision = "fp32"
WEIGHTS = ".safetensors"


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
    _refuse(out, raw=raw, precision=precision, overwrite=overwrite)
    if out.suffix == WEIGHTS:
        return _export_weights(checkpoint, out)
    return _export_onnx(
        checkpoint,
        out,
        raw=raw,
        precision=precision,
        data=data,
        split=split,
        images=images,
        skippable=skippable,
    )


def _refuse(out: Path, *, raw: bool, precision: write.Precision, overwrite: bool) -> None:
    """Refuses to replace a file without being asked, an unknown ending, and what it cannot have.

    Raises:
        UserError: it does.
    """
    is_weights, is_reduced = out.suffix == WEIGHTS, precision != FULL
    made = [out, checkpoints.card_path(out)] if is_weights else [out]
    lost = [file for file in made if file.exists()]
    if lost and not overwrite:
        raise UserError(f"There is a file {lost[0]} already: --overwrite replaces it.")
    if is_weights and (raw or is_reduced):
        raise UserError("--raw and --precision are for .onnx files; this one holds weights.")
    if not is_weights and out.suffix != ".onnx":
        raise UserError(f"--out {out}: the name must end in .onnx or .safetensors.")
    if raw and is_reduced:
        raise UserError(f"The AP of {precision} cannot be measured with --raw: leave one out.")


def _export_weights(checkpoint: str, out: Path) -> dict[str, Any]:
    """Copies weights and card."""
    checkpoints.copy(checkpoint, out)
    return _described(out)


def _export_onnx(
    checkpoint: str,
    out: Path,
    *,
    raw: bool,
    precision: write.Precision,
    data: str | None,
    split: str,
    images: int,
    skippable: float,
) -> dict[str, Any]:
    """Writes a checked ONNX file; one of reduced precision is evaluated beside PyTorch."""
    write.require_packages()
    detector, resize = ready.load(checkpoint)
    is_reduced = precision != FULL
    dataset = datasets.open(
        data or ready.data_of(checkpoint),
        split,
        resize=resize,
        skippable=skippable,
        decode=is_reduced,
    )
    pictures = [dataset[i].image for i in range(min(images, len(dataset)))]
    metrics = {"PyTorch": _measured(detector, dataset)} if is_reduced else {}
    exported = write.export(checkpoint, out, pictures, raw=raw, precision=precision)
    if is_reduced:
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
