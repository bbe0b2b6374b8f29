"""Box coders, suppression of duplicates and base losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tests.golden_cases.case import MismatchError
from tests.parity_cases.recording import RAW, Folder
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

from detdistill import focal, losses
from detdistill.boxes import DeltaCoder, DistanceCoder, to_distances

SIZE = (256, 320)
BIN_MARGIN = 0.1
STRIDE = torch.tensor(8)
CODERS = {"delta_unit": DeltaCoder(), "delta_atss": DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))}


def cases(folder: Folder) -> list[str]:
    """`coder.<name>.<verb>`, `nms.keep_<iou>`, `loss.<name>`."""
    keys = list(folder.arrays)
    coders = [key for key in keys if key.startswith("coder.") and key.count(".") > 1]
    kept = [key for key in keys if key.startswith("nms.keep")]
    values = [key.removesuffix(".value") for key in keys if key.endswith(".value")]
    return coders + kept + values


def run(folder: Folder, case: str) -> None:
    """Compares one of them."""
    {"coder": _coder, "nms": _suppression, "loss": _loss}[case.partition(".")[0]](folder, case)


def _coder(folder: Folder, case: str) -> None:
    _, name, verb = case.split(".")
    given = folder.numbers
    if name in CODERS:
        encoded = CODERS[name].encode(given("coder.gts"), given("coder.priors"))
        decoded = CODERS[name].decode(given("coder.deltas"), given("coder.priors"), STRIDE)
    elif name == "point":
        points = given("coder.points")
        encoded = to_distances(points, given("coder.gts"))
        decoded = DistanceCoder().decode(given("coder.dist"), torch.cat([points] * 2, 1), STRIDE)
    else:
        raise MismatchError(f"there is no coder {name} here")
    found = {
        "encode": encoded,
        "encode_max16": (encoded / STRIDE).clamp(0, 16 - BIN_MARGIN),
        "decode": decoded,
        "decode_clip": clip_boxes_to_image(decoded, SIZE),
    }
    _same(case, found[verb], given(case))


def _suppression(folder: Folder, case: str) -> None:
    boxes, scores, labels = (folder.numbers(f"nms.{key}") for key in ("boxes", "scores", "labels"))
    overlap = float(case.rpartition("_")[2])
    agnostic = "agnostic" in case
    kept = nms(boxes, scores, overlap) if agnostic else batched_nms(boxes, scores, labels, overlap)
    if not torch.equal(kept, folder.numbers(case)):
        raise MismatchError("other boxes are kept")


def _loss(folder: Folder, case: str) -> None:
    name, given = case.removeprefix("loss."), folder.numbers
    if name not in LOSSES:
        raise MismatchError(f"there is no loss {name} here")
    leaf_name, each = LOSSES[name]
    leaf = given(f"loss.in.{leaf_name}").requires_grad_()
    settings = folder.config[case]
    weight = _weight(folder, name) if "weight" in settings["kwargs"] else None
    scale = settings["cfg"]["loss_weight"]
    loss = scale * losses.weighted_mean(
        each(leaf, folder), weight, settings["kwargs"]["avg_factor"]
    )
    loss.backward()
    expected = given(f"{case}.grad")
    _same(f"{case}.value", loss, given(f"{case}.value"))
    _same(f"{case}.grad", leaf.grad if expected.ndim > 1 else leaf.grad[:, 0], expected)


def _weight(folder: Folder, name: str) -> Tensor:
    """Whole numbers for class losses, parts for box losses."""
    key = "weight" if name in {"qfl", "focal"} else "weight_f"
    weight = folder.numbers(f"loss.in.{key}")
    return weight.unsqueeze(-1) if name in {"l1", "smooth_l1"} else weight


def _divergence(leaf: Tensor, folder: Folder, temperature: float) -> Tensor:
    return (
        losses.kl_divergence(leaf, folder.numbers("loss.in.tea_dist"), temperature) / leaf.shape[1]
    )


LOSSES: dict[str, tuple[str, Callable[[Tensor, Folder], Tensor]]] = {
    "qfl": (
        "logit",
        lambda leaf, f: focal.quality_focal_loss(
            leaf, f.numbers("loss.in.labels"), f.numbers("loss.in.quality")
        ),
    ),
    "focal": (
        "logit",
        lambda leaf, f: focal.sigmoid_focal_loss(leaf, f.numbers("loss.in.labels")),
    ),
    "dfl": (
        "dist_logit",
        lambda leaf, f: losses.distribution_focal_loss(leaf, f.numbers("loss.in.dist_target")),
    ),
    "giou": ("pred_boxes", lambda leaf, f: losses.giou_loss(leaf, f.numbers("loss.in.gt_boxes"))),
    "iou_log": (
        "pred_boxes",
        lambda leaf, f: losses.log_iou_loss(leaf, f.numbers("loss.in.gt_boxes")),
    ),
    "l1": ("pred_boxes", lambda leaf, f: (leaf - f.numbers("loss.in.gt_boxes")).abs()),
    "smooth_l1": (
        "pred_boxes",
        lambda leaf, f: F.smooth_l1_loss(
            leaf, f.numbers("loss.in.gt_boxes"), reduction="none", beta=1 / 9
        ),
    ),
    "bce": ("logit", lambda leaf, f: losses.soft_bce(leaf[:, 0], f.numbers("loss.in.quality"))),
    "kd_kl_T10": ("dist_logit", lambda leaf, f: _divergence(leaf, f, 10.0)),
    "kd_kl_T1": ("dist_logit", lambda leaf, f: _divergence(leaf, f, 1.0)),
}
"""By name: what the gradient is with respect to, and the loss of every sample."""


def _same(name: str, found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape or not torch.allclose(found, expected, **RAW):
        raise MismatchError(f"{name} differs")
