"""An exported file finds what PyTorch finds, or is not written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from detdistill import data, detectors, run_files
from detdistill.cli import ready, verbs
from detdistill.detectors import Detector
from detdistill.detectors.architecture import Points
from detdistill.detectors.region_architecture import Proposing
from detdistill.errors import UserError
from detdistill.evaluate import detect, predict
from detdistill.evaluate.run import evaluating
from detdistill.interop import checkpoint
from detdistill.interop.onnx import agreement, runtime, write
from detdistill.interop.onnx.families import graph_of

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "detect_onnx.py"
CLASSES = data.open("shapes:tiny", "test").classes
DENSE = ("gfl", "atss", "retinanet", "fcos")
KINDS = ("fcos", "faster_rcnn", "deformable_detr")
"""One family of each kind of predictions."""
FIVE_LEVELS = {"extra_levels": 2, "points": Points()}
LESS = {
    "faster_rcnn": {"test_proposals": Proposing(per_level=60, per_image=80)},
    "deformable_detr": {"encoder_layers": 1, "decoder_layers": 2},
}
"""Settings that make a family quick to export."""


def talkative(family: str, *, joint: bool = False, deep: bool = False) -> Detector:
    """A detector without training that finds many objects of different scores.

    `deep` gives a dense one as many levels as large detectors have.
    """
    torch.manual_seed(0)
    architecture: Any = detectors.build(f"{family}-mini-w8", CLASSES).architecture
    less = LESS.get(family)
    if less is None:
        selection = replace(architecture.selection, per_level=150, joint=joint)
        less = {"selection": selection, "tower_depth": 1, **(FIVE_LEVELS if deep else {})}
    built: Any = detectors.from_architecture(replace(architecture, **less))
    with torch.no_grad():
        _embolden(built)
    return built.eval()


def _embolden(built: Any) -> None:
    """Makes the weights that decide on scores and boxes larger."""
    if built.spec.family == "dense":
        built.head.cls.weight.mul_(20)
        built.head.cls.bias.fill_(-3)
        built.head.reg.weight.mul_(5)
    elif built.spec.family == "region":
        built.rpn.convs.cls_logits.weight.mul_(50)
        built.rpn.convs.bbox_pred.weight.mul_(20)
        built.head.cls.weight.mul_(100)
        built.head.reg.weight.mul_(500)
    else:
        for branch in built.head.box:
            torch.nn.init.normal_(branch.layers[-1].weight, std=0.3)


def pictures(count: int = 2, height: int = 50, width: int = 70) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return list(
        torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    )


@pytest.fixture(scope="module")
def ship(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run folder of a family, with its model.onnx, which is exported once."""

    @cache
    def of_family(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        checkpoint.save(
            talkative(family, deep=True), folder / run_files.STUDENT, {"resize": (64, 96)}
        )
        found = verbs.export(
            str(folder), out=str(folder / "model.onnx"), data="shapes:tiny", images=2
        )
        assert found["differences"]["scores"] < agreement.TOLERANCE
        assert found["differences"]["pictures"] == 2
        return folder

    return of_family


@pytest.fixture(scope="module")
def run_folder(ship: Callable[[str], Path]) -> Path:
    return ship("fcos")


@pytest.fixture(scope="module")
def exported(run_folder: Path) -> Path:
    return run_folder / "model.onnx"


@pytest.mark.parametrize(
    ("family", "joint"),
    [*product(DENSE, [False, True]), ("faster_rcnn", False), ("deformable_detr", False)],
)
def test_the_graph_finds_what_the_detector_finds(family: str, joint: bool) -> None:
    detector = talkative(family, joint=joint)
    images, sizes = torch.stack(pictures(3, 64, 96)), torch.tensor([[64, 96], [40, 90], [64, 50]])
    with torch.no_grad():
        found = graph_of(detector)(images, sizes)
        expected = detector.detect(detector(images, sizes), sizes)
    assert expected.counts.min() > 10
    assert torch.equal(found.counts, expected.counts)
    for image, count in enumerate(expected.counts.tolist()):
        for name in ("boxes", "scores", "labels"):
            ours, theirs = getattr(found, name)[image], getattr(expected, name)[image]
            assert torch.equal(ours[:count], theirs[:count]), name
            assert not ours[count:].any()


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 64), (3, 416, 288)])
def test_a_file_takes_batches_and_pictures_of_any_size(
    ship: Callable[[str], Path], family: str, batch: int, height: int, width: int
) -> None:
    images = pictures(batch, height, width)
    ours = detect(checkpoint.load(ship(family)), images)
    file = runtime.OnnxDetector(ship(family) / "model.onnx")
    theirs = detect(file, images)
    assert torch.equal(theirs.counts, ours.counts)
    count = int(ours.counts.min())
    assert count > 10
    assert torch.allclose(theirs.boxes[:, :count], ours.boxes[:, :count], atol=1e-2)
    assert torch.equal(theirs.labels[:, :count], ours.labels[:, :count])
    assert file.spec.family == file.card["family"] == checkpoint.load(ship(family)).spec.family


def test_evaluation_of_a_file_sees_the_same_detections(run_folder: Path, exported: Path) -> None:
    ours, theirs = (
        predict(detector, data.open("shapes:tiny", "test", 3, resize))
        for detector, resize in (ready.load(str(run_folder)), ready.load(str(exported)))
    )
    assert len(ours) == len(theirs) > 30
    for one, other in zip(ours, theirs, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


def test_the_example_needs_no_torch_and_prints_what_we_find(
    run_folder: Path, exported: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(pictures(1, 64, 90)[0].permute(1, 2, 0).numpy()).save(picture)
    assert "torch" not in EXAMPLE.read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, EXAMPLE, exported, picture], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    found = detect(checkpoint.load(run_folder), pictures(1, 64, 90))
    assert len(lines) == int(found.counts[0])
    words = lines[0].rsplit(maxsplit=5)
    assert words[0] == f"{picture} {CLASSES[int(found.labels[0, 0])]}"
    assert [float(word) for word in words[2:]] == pytest.approx(
        found.boxes[0, 0].tolist(), abs=0.06
    )


def test_a_file_says_what_somebody_needs_to_use_it(exported: Path) -> None:
    card = runtime.OnnxDetector(exported).card
    assert tuple(card["classes"]) == CLASSES
    assert card["resize"] == [64, 96]
    assert card["architecture"]["family"] == "fcos"


@pytest.mark.parametrize("family", KINDS)
def test_eight_bits_make_a_smaller_file_that_runs(
    ship: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes((ship(family) / "model.onnx").read_bytes())
    small = write._quantised(file)
    assert small.stat().st_size < 0.8 * file.stat().st_size
    found = detect(runtime.OnnxDetector(small), pictures())
    assert found.scores.isfinite().all()
    assert found.counts.min() > 0


@pytest.mark.parametrize("family", ["retinanet", "faster_rcnn", "deformable_detr"])
def test_half_precision_moves_scores_and_boxes_little(family: str) -> None:
    full = graph_of(talkative(family))
    half = full.halved()
    images, sizes = torch.stack(pictures(1, 64, 64)), torch.tensor([[64, 64]])
    with torch.no_grad():
        ours, theirs = full(images, sizes), half(images, sizes)
    assert any(weight.dtype == torch.float16 for weight in half.parameters())
    assert ours.raw_boxes.dtype == theirs.raw_boxes.dtype == torch.float32
    if full.ranked:
        rows, others = agreement.pairs(ours.raw_boxes[0], theirs.raw_boxes[0], tolerance=4.0)
        assert len(rows) > 0.5 * ours.raw_boxes.shape[1]
        apart = ours.raw_scores[0, rows] - theirs.raw_scores[0, others]
    else:
        apart = ours.raw_scores - theirs.raw_scores
    assert 0 < float(apart.abs().max()) < 0.05


def test_half_precision_keeps_the_priors() -> None:
    detector = talkative("retinanet")
    half = graph_of(detector).halved().detector
    images, sizes = torch.stack(pictures(1, 64, 64)), torch.tensor([[64, 64]])
    with evaluating(half):
        ours, theirs = detector(images, sizes).dense, half(images, sizes).dense
    assert theirs.logits[0].dtype == torch.float16
    assert torch.equal(ours.flat_priors(), theirs.flat_priors())


class Unwritten:
    """Stands for what the exporter makes."""

    def save(self, file: Path) -> None:
        file.touch()


@pytest.mark.parametrize("family", ["fcos", "faster_rcnn"])
@pytest.mark.parametrize("name", ["raw_boxes", "raw_scores", "labels"])
def test_a_file_that_finds_something_else_is_not_put_in_place(
    family: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(talkative(family), tmp_path / "runs" / run_files.STUDENT)
    graph = graph_of(talkative(family))

    @torch.no_grad()
    def run(_: object, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        found = graph(images, sizes)._asdict()
        return {**found, name: found[name] * 1.01 + 1}

    monkeypatch.setattr(agreement, "open_session", lambda _: None)
    monkeypatch.setattr(agreement, "run", run)
    monkeypatch.setattr(write, "_program", lambda _: Unwritten())
    with pytest.raises(UserError, match="does not find what PyTorch finds"):
        write.export(str(tmp_path / "runs"), tmp_path / "made" / "model.onnx", pictures())
    assert not (tmp_path / "made").exists()


def test_detections_without_a_twin_are_counted() -> None:
    detector = talkative("gfl")
    images, sizes = torch.stack(pictures(1, 64, 64)), torch.tensor([[64, 64]])
    with torch.no_grad():
        found = graph_of(detector)(images, sizes)
        expected = detector.detect(detector(images, sizes), sizes)
    assert agreement.lost(expected, found) == 0
    other = found._replace(labels=torch.where(found.labels == found.labels[0, 0], -1, found.labels))
    assert agreement.lost(expected, other) > 0


def test_regions_in_another_order_are_still_compared_with_their_twins() -> None:
    boxes = torch.rand(6, 3, 4, generator=torch.Generator().manual_seed(0)) * 50
    order = torch.tensor([3, 1, 2, 0, 4, 5])
    theirs = boxes[order] + 1e-4
    theirs[4] += 1
    rows, their_rows = agreement.pairs(boxes, theirs, tolerance=1e-3)
    assert rows.tolist() == [0, 1, 2, 3, 5]
    assert order[their_rows].tolist() == rows.tolist()


def test_edges_may_be_off_by_a_thousandth_of_a_pixel_for_each_hundred_of_the_picture() -> None:
    assert agreement.edge_tolerance(torch.zeros(3, 50, 80)) == agreement.TOLERANCE
    assert agreement.edge_tolerance(torch.zeros(3, 800, 1300)) == pytest.approx(0.013)


def test_a_missing_extra_is_named(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install '.\[onnx\]'"):
        verbs.export(str(run_folder), out="model.onnx")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"out": "model.pt"}, r"must end in \.onnx or \.safetensors"),
        ({"out": "model.onnx", "raw": True, "precision": "int8"}, "leave one out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    run_folder: Path, settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        verbs.export(str(run_folder), **settings)


def test_safetensors_are_exported_with_their_whole_card(run_folder: Path, tmp_path: Path) -> None:
    verbs.export(str(run_folder), out=str(tmp_path / "model.safetensors"))
    assert checkpoint.resize_of(tmp_path / "model.safetensors") == (64, 96)
    loaded = checkpoint.load(tmp_path / "model.safetensors")
    card = json.loads((tmp_path / "model.json").read_text())
    assert checkpoint.fingerprint(loaded) == card["fingerprint"]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"model\.onnx cannot be opened as ONNX"):
        runtime.OnnxDetector(file)
    with pytest.raises(UserError, match="no file"):
        runtime.OnnxDetector(tmp_path / "other.onnx")
