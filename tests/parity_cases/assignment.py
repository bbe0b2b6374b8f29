"""Label assignment on recorded priors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tests.golden_cases.case import MismatchError
from tests.parity_cases.recording import Folder, padded

from detdistill.detectors import assign
from detdistill.detectors.dense import Assigner

CLASSES = 80


def cases(folder: Folder) -> list[str]:
    """`assigner.objects` for every pair that is recorded."""
    suffix = ".gt_inds"
    return [key.removesuffix(suffix) for key in folder.arrays if key.endswith(suffix)]


def run(folder: Folder, case: str) -> None:
    """Compares which prior has which object; the reference's overlaps are its own affair."""
    name, objects = case.split(".")
    spec = folder.config["spec"][name]
    owner = folder.numbers(f"{case}.gt_inds").long()
    boxes = folder.numbers(f"gt.{objects}.boxes").reshape(-1, 4)
    labels = folder.numbers(f"gt.{objects}.labels")
    ignore = folder.numbers(f"gt.{objects}.ignore").reshape(-1, 4)
    width, height = folder.config["image_wh"]
    priors = folder.numbers(f"priors.{spec['priors']}")
    targets = assigner(spec["assigner"])(
        priors,
        tuple(folder.numbers(f"priors.{spec['priors']}.n_per_level").tolist()),
        padded(
            [boxes],
            [labels],
            torch.tensor([[height, width]]),
            [ignore if spec["uses_ignore"] else ignore[:0]],
        ),
        inside=torch.ones(1, len(priors), dtype=torch.bool),
        num_classes=CLASSES,
        world_mean=lambda count: count,
    )
    place = owner.clamp(min=0)
    expected = {
        "positives": (targets.labels[0] < CLASSES, owner > 0),
        "ignored": (targets.weights[0] == 0, owner < 0),
        "objects": (targets.boxes[0], torch.cat([torch.zeros(1, 4), boxes])[place]),
        "labels": (
            targets.labels[0],
            torch.cat([torch.tensor([CLASSES]), labels])[place],
        ),
    }
    wrong = [what for what, (found, wanted) in expected.items() if not torch.equal(found, wanted)]
    if wrong:
        raise MismatchError(f"{', '.join(wrong)} differ")


def assigner(spec: dict[str, Any]) -> Assigner:
    """The assigner that MMDetection's settings describe."""
    settings = dict(spec)
    kind = settings.pop("type")
    if kind not in BUILDERS:
        raise MismatchError(f"there is no {kind} here")
    build, names = BUILDERS[kind]
    unknown = set(settings) - set(names)
    if unknown:
        raise MismatchError(f"{kind} has no {', '.join(sorted(unknown))} here")
    return partial(build, **_translated(settings, names))


def _translated(settings: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    found = {names[key]: value for key, value in settings.items()}
    if found.pop("match_low_quality", True) is False:
        found["low_quality"] = None
    if found.get("ignore_above", -1) < 0:
        found.pop("ignore_above", None)
    return found


BUILDERS: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "ATSSAssigner": (assign.atss, {"topk": "topk", "ignore_iof_thr": "ignore_above"}),
    "MaxIoUAssigner": (
        assign.max_iou,
        {
            "pos_iou_thr": "positive_iou",
            "neg_iou_thr": "negative_iou",
            "min_pos_iou": "low_quality",
            "match_low_quality": "match_low_quality",
            "ignore_iof_thr": "ignore_above",
            "gt_max_assign_all": "ties",
        },
    ),
}
"""What MMDetection's settings are called here."""
