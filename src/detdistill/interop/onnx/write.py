"""Writes a detector as an ONNX file, once onnxruntime has found in pictures what PyTorch finds."""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from detdistill import detectors
from detdistill.detectors import Detector
from detdistill.errors import MissingExtraError
from detdistill.files import replace_file
from detdistill.interop import checkpoint
from detdistill.interop.onnx import agreement
from detdistill.interop.onnx.families import graph_of
from detdistill.interop.onnx.graph import RAW, SELECTED, Graph
from detdistill.interop.onnx.runtime import CARD
from detdistill.interop.onnx.suppression import translations
from detdistill.structures import PAD_MULTIPLE

Precision = Literal["fp32", "fp16", "int8"]
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
EXAMPLE = (2, 3, 9 * PAD_MULTIPLE, 13 * PAD_MULTIPLE)
"""The input that the exporter follows through the detector; all but the channels may change.

No level, up to stride 128, may have a single row or column: that would become a rule of the file.
"""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What became of an export."""

    file: Path
    precision: Precision
    differences: agreement.Differences
    """Between PyTorch and the file before its numbers were made coarser."""


def export(
    source: str,
    file: Path,
    pictures: Sequence[Tensor],
    *,
    raw: bool = False,
    precision: Precision = "fp32",
) -> Exported:
    """Writes the detector of a run folder or .safetensors file to an ONNX file, all or nothing.

    Args:
        source: the checkpoint.
        file: what to write.
        pictures: (3, H, W) uint8 each, on which both must find the same.
        raw: write all predictions instead of detections.
        precision: of weights and computation; what it costs in AP is the caller's to measure.

    Raises:
        UserError: the packages are missing, or onnxruntime finds something else than PyTorch.
    """
    require_packages()
    graph = graph_of(checkpoint.load(source))
    sides, letterbox = checkpoint.resize_of(source), checkpoint.letterbox_of(source)
    card = _card(graph.detector, sides, letterbox, precision)
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "full.onnx"
        program = _program(graph)
        program.save(full)
        differences = agreement.check(full, graph, pictures)
        if precision == "fp16":
            program = _program(graph.halved())
        _keep(program.model, RAW if raw else SELECTED)
        program.model.metadata_props[CARD] = json.dumps(card, ensure_ascii=False)
        made = Path(folder) / "made.onnx"
        program.save(made)
        if precision == "int8":
            made = _quantised(made)
        replace_file(file, lambda place: shutil.copyfile(made, place))
    return Exported(file=file, precision=precision, differences=differences)


def require_packages() -> None:
    """Makes sure that the extra is there.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        for package in PACKAGES:
            importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError("Export to ONNX", "onnx", error) from error


def _program(graph: Graph) -> Any:  # noqa: ANN401 - the exporter's own class
    """A detector as the exporter sees it, with all outputs of `Found`."""
    free = torch.export.Dim.DYNAMIC
    shapes = {"images": {0: free, 2: free, 3: free}, "sizes": {0: free}}
    example = (torch.zeros(EXAMPLE, dtype=torch.uint8), torch.tensor([EXAMPLE[2:]] * EXAMPLE[0]))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        followed = torch.export.export(graph, example, dynamic_shapes=shapes)
        return torch.onnx.export(
            followed,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images", "sizes"],
            output_names=[*SELECTED, *RAW],
            custom_translation_table=translations(),
        )


def _keep(model: Any, names: Sequence[str]) -> None:  # noqa: ANN401 - of onnx_ir
    """Removes the other outputs, and what is computed for them alone."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    kept = [output for output in model.graph.outputs if output.name in names]
    model.graph.outputs.clear()
    model.graph.outputs.extend(kept)
    RemoveUnusedNodesPass()(model)


def _quantised(file: Path) -> Path:
    """Weights in 8 bits, activations too, in a range that each picture decides.

    The shapes that the file states are left out: quantisation turns weights and keeps their shapes.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = file.with_stem("int8")
    model = onnx.load(file)
    model.graph.ClearField("value_info")
    quantize_dynamic(
        model, made, op_types_to_quantize=["Conv", "MatMul", "Gemm"], weight_type=QuantType.QUInt8
    )
    return made


def _card(
    detector: Detector,
    resize: tuple[int, int] | None,
    letterbox: int | None,
    precision: Precision,
) -> dict[str, Any]:
    """What somebody needs to use the file, and where it came from."""
    return {
        "family": detector.spec.family,
        "classes": list(detector.spec.classes),
        "strides": list(detector.spec.strides),
        "input": "images (B, 3, H, W) uint8 RGB and sizes (B, 2) int64 heights and widths",
        "resize": list(resize) if resize else None,
        "letterbox": letterbox,
        "pad": {"multiple": PAD_MULTIPLE, "value": 0, "sides": ["right", "bottom"]},
        "normalisation": "inside",
        "precision": precision,
        "architecture": detectors.to_card(detector.architecture),
        "fingerprint": checkpoint.fingerprint(detector),
    }
