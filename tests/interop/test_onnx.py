"""An exported file finds what PyTorch finds, or is not written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from detdistill import data, detectors
from detdistill.cli import ready, verbs
from detdistill.detectors.dense import DenseDetector
from detdistill.errors import UserError
from detdistill.evaluate import detect, predict
from detdistill.evaluate.run import evaluating
from detdistill.interop import checkpoint
from detdistill.interop.onnx import agreement, runtime, write
from detdistill.interop.onnx.graph import Graph

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "detect_onnx.py"
CLASSES = data.open("shapes:tiny", "test").classes
FAMILIES = ("gfl", "atss", "retinanet", "fcos")


def talkative(family: str, *, joint: bool = False) -> DenseDetector:
    """A detector without training that finds many objects of different scores."""
    torch.manual_seed(0)
    built = detectors.build(f"{family}-mini-w8", CLASSES)
    assert isinstance(built, DenseDetector)
    selection = replace(built.architecture.selection, per_level=150, joint=joint)
    built = detectors.from_architecture(replace(built.architecture, selection=selection))
    assert isinstance(built, DenseDetector)
    with torch.no_grad():
        built.head.cls.weight.mul_(20)
        built.head.cls.bias.fill_(-3)
        built.head.reg.weight.mul_(5)
    return built.eval()


def pictures(count: int = 2, height: int = 50, width: int = 70) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return list(
        torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    checkpoint.save(talkative("fcos"), folder / checkpoint.STUDENT, {"resize": (64, 96)})
    return folder


@pytest.fixture(scope="module")
def exported(run_folder: Path) -> Path:
    file = run_folder / "model.onnx"
    found = verbs.export(str(run_folder), out=str(file), data="shapes:tiny", images=2)
    assert found["differences"]["scores"] < agreement.TOLERANCE
    assert found["differences"]["pictures"] == 2
    return file


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("joint", [False, True])
def test_the_graph_finds_what_the_detector_finds(family: str, joint: bool) -> None:
    detector = talkative(family, joint=joint)
    images, sizes = torch.stack(pictures(3, 64, 96)), torch.tensor([[64, 96], [40, 90], [64, 50]])
    with torch.no_grad():
        found = Graph(detector)(images, sizes)
        expected = detector.detect(detector(images, sizes), sizes)
    assert expected.counts.min() > 10
    assert torch.equal(found.counts, expected.counts)
    for image, count in enumerate(expected.counts.tolist()):
        for name in ("boxes", "scores", "labels"):
            ours, theirs = getattr(found, name)[image], getattr(expected, name)[image]
            assert torch.equal(ours[:count], theirs[:count]), name
            assert not ours[count:].any()


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 64), (3, 96, 32)])
def test_a_file_takes_batches_and_pictures_of_any_size(
    run_folder: Path, exported: Path, batch: int, height: int, width: int
) -> None:
    images = pictures(batch, height, width)
    ours = detect(checkpoint.load(run_folder), images)
    theirs = detect(runtime.OnnxDetector(exported), images)
    assert torch.equal(theirs.counts, ours.counts)
    count = int(ours.counts.min())
    assert count > 10
    assert torch.allclose(theirs.boxes[:, :count], ours.boxes[:, :count], atol=1e-2)
    assert torch.equal(theirs.labels[:, :count], ours.labels[:, :count])


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


def test_eight_bits_make_a_smaller_file_that_runs(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(exported.read_bytes())
    small = write._quantised(file)
    assert small.stat().st_size < 0.8 * file.stat().st_size
    found = detect(runtime.OnnxDetector(small), pictures())
    assert found.scores.isfinite().all()


def test_half_precision_keeps_the_priors_and_nearly_the_scores() -> None:
    detector = talkative("retinanet")
    half = write.halved(detector)
    images, sizes = torch.stack(pictures(1, 64, 64)), torch.tensor([[64, 64]])
    with evaluating(half):
        ours, theirs = detector(images, sizes).dense, half(images, sizes).dense
    assert theirs.logits[0].dtype == torch.float16
    assert torch.equal(ours.flat_priors(), theirs.flat_priors())
    apart = (ours.flat_logits().sigmoid() - theirs.flat_logits().float().sigmoid()).abs()
    assert 0 < float(apart.max()) < 0.05


class Unwritten:
    """Stands for what the exporter makes."""

    def save(self, file: Path) -> None:
        file.touch()


@pytest.mark.parametrize("name", ["raw_boxes", "raw_scores", "labels"])
def test_a_file_that_finds_something_else_is_not_put_in_place(
    name: str, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph(talkative("fcos")).eval()

    @torch.no_grad()
    def run(_: object, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        found = graph(images, sizes)._asdict()
        return {**found, name: found[name] * 1.01 + 1}

    monkeypatch.setattr(agreement, "open_session", lambda _: None)
    monkeypatch.setattr(agreement, "run", run)
    monkeypatch.setattr(write, "_program", lambda _: Unwritten())
    with pytest.raises(UserError, match="does not find what PyTorch finds"):
        write.export(str(run_folder), tmp_path / "model.onnx", pictures())
    assert not list(tmp_path.iterdir())


def test_detections_without_a_twin_are_counted() -> None:
    detector = talkative("gfl")
    images, sizes = torch.stack(pictures(1, 64, 64)), torch.tensor([[64, 64]])
    with torch.no_grad():
        found = Graph(detector)(images, sizes)
        expected = detector.detect(detector(images, sizes), sizes)
    assert agreement.lost(expected, found) == 0
    other = found._replace(labels=torch.where(found.labels == found.labels[0, 0], -1, found.labels))
    assert agreement.lost(expected, other) > 0


@pytest.mark.parametrize("family", ["faster_rcnn", "deformable_detr"])
def test_other_families_are_refused_in_a_sentence(family: str, tmp_path: Path) -> None:
    checkpoint.save(detectors.build(f"{family}-mini-w8", CLASSES), tmp_path / checkpoint.STUDENT)
    with pytest.raises(UserError, match=f"A {family} cannot be exported"):
        write.export(str(tmp_path), tmp_path / "model.onnx", pictures())
    assert not (tmp_path / "model.onnx").exists()


def test_a_missing_extra_is_named(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'detdistill\[onnx\]'"):
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
