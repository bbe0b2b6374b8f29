from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detdistill import detectors
from detdistill.detectors import Detector
from detdistill.errors import UserError
from detdistill.files import read_json
from detdistill.interop import checkpoint
from detdistill.train import experiment as experiments
from detdistill.train import start
from detdistill.train.assembly import checkpoints_of, resolved
from detdistill.train.experiment import Experiment
from detdistill.train.loop import train

CLASSES = ("circle", "star")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The backbone of a narrow ResNet-18 in a file."""
    torch.manual_seed(9)
    file = tmp_path_factory.mktemp("weights") / "r18.pth"
    torch.save(detectors.build("gfl-quick-w8", CLASSES).backbone.state_dict(), file)
    return str(file)


@pytest.fixture
def checkpointed(tmp_path: Path) -> str:
    file = tmp_path / "mine.safetensors"
    checkpoint.save(detectors.build("gfl-quick-w8", CLASSES), file)
    return str(file)


def started(**settings: Any) -> tuple[Detector, str]:
    experiment = Experiment(**settings)
    return start.student(experiment, CLASSES, start.weights_of(experiment))


def frozen(detector: Detector) -> tuple[int, bool]:
    backbone = detector.architecture.backbone
    return backbone.frozen_stages, backbone.frozen_norm


def test_by_default_all_is_random_and_trained() -> None:
    student, origin = started(seed=3)
    assert frozen(student) == (0, False)
    assert origin == "random, from seed 3; nothing pretrained"
    assert all(p.requires_grad for p in student.parameters())


def test_pretrained_weights_fill_the_backbone_and_leave_the_rest_as_it_was(weights: str) -> None:
    student, origin = started(pretrained=weights)
    plain, _ = started()
    expected = torch.load(weights, weights_only=True)
    for name, tensor in student.state_dict().items():
        inner = name.removeprefix("backbone.")
        assert tensor.equal(expected[inner] if inner != name else plain.state_dict()[name])
    assert origin == (
        f"backbone of {weights}, the rest from seed 0; "
        "frozen: stem and 1 of its stages, norm statistics"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (1, True)),
        ({"frozen_stages": 0}, (0, True)),
        ({"frozen_stages": 2, "frozen_norm": False}, (2, False)),
    ],
)
def test_a_pretrained_resnet_is_frozen_as_usual_or_as_said(
    settings: dict[str, Any], expected: tuple[int, bool], weights: str
) -> None:
    student, _ = started(pretrained=weights, **settings)
    assert frozen(student) == expected
    stem = next(student.backbone.parameters())
    assert stem.requires_grad == (expected[0] == 0)


def test_other_pretrained_backbones_are_trained_whole(tmp_path: Path) -> None:
    name = "gfl-quick-swin-t-w8"
    file = tmp_path / "swin.pth"
    torch.save(detectors.build(name, CLASSES).backbone.state_dict(), file)
    assert frozen(started(student=name, pretrained=str(file))[0]) == (0, False)


def test_what_is_usual_is_spelled_out_in_the_run_folder(weights: str) -> None:
    spelled = resolved(Experiment(pretrained=weights))
    assert (spelled.frozen_stages, spelled.frozen_norm) == (1, True)
    plain = resolved(Experiment())
    assert (plain.frozen_stages, plain.frozen_norm) == (None, None)
    assert checkpoints_of(Experiment(pretrained=weights)) == [weights]
    assert checkpoints_of(Experiment(pretrained="imagenet")) == []


def test_a_checkpoint_may_be_frozen_too(checkpointed: str) -> None:
    student, origin = started(student=checkpointed, frozen_stages=1)
    assert frozen(student) == (1, False)
    assert origin == f"weights of {checkpointed}; frozen: stem and 1 of its stages"
    assert checkpoint.fingerprint(student) == checkpoint.fingerprint(checkpoint.load(checkpointed))


def test_a_checkpoint_has_weights_already(checkpointed: str, weights: str) -> None:
    with pytest.raises(UserError, match="has weights already"):
        started(student=checkpointed, pretrained=weights)


@pytest.mark.parametrize("settings", [{"frozen_stages": 1}, {"frozen_norm": True}])
def test_random_weights_are_not_frozen(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="would keep random weights"):
        started(**settings)


def test_stages_that_are_not_there_are_not_frozen() -> None:
    with pytest.raises(UserError, match="frozen_stages is 5, but must be 0 to 4"):
        experiments.check(Experiment(frozen_stages=5))


def test_what_is_frozen_does_not_move_in_a_training(
    plain: Experiment, weights: str, tmp_path: Path
) -> None:
    train(replace(plain, pretrained=weights), tmp_path / "run", device="cpu")
    trained = checkpoint.load(tmp_path / "run").backbone.state_dict()
    before = torch.load(weights, weights_only=True)
    moved = {name for name, tensor in trained.items() if not tensor.equal(before[name])}
    assert "layer2.0.conv1.weight" in moved
    assert "layer2.0.bn1.weight" in moved
    still = ("conv1.", "bn1.", "layer1.")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert not [name for name in moved if name.startswith(still) or name.endswith(statistics)]
    card = read_json(tmp_path / "run" / "student.json")
    assert card["origin"].startswith(f"backbone of {weights}")
    assert experiments.load(tmp_path / "run" / "experiment.yaml").pretrained == weights
