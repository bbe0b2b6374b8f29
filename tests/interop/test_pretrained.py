from __future__ import annotations

import dataclasses
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor

from detdistill import detectors
from detdistill.detectors.backbones import Backbone, Features, build_backbone
from detdistill.errors import UserError
from detdistill.interop import checkpoint, pretrained
from detdistill.interop.pretrained import fill, read

R18 = Backbone(name="resnet18")
SMALL = Backbone(name="resnet18", width=4)


def classifier(settings: Backbone = SMALL) -> dict[str, Tensor]:
    """Weights as a classification network of this backbone would have them."""
    torch.manual_seed(7)
    whole = dataclasses.replace(settings, stages=(1, 2, 3, 4), zero_last_norm=False)
    body = build_backbone(whole).state_dict()
    return {**body, "fc.weight": torch.rand(10, 32), "fc.bias": torch.rand(10)}


def saved(content: Any, file: Path) -> str:
    if file.suffix == ".safetensors":
        safetensors.torch.save_file(content, file)
    else:
        torch.save(content, file)
    return str(file)


def filled(source: str, settings: Backbone = SMALL) -> tuple[Features, list[str]]:
    torch.manual_seed(0)
    features = build_backbone(settings)
    return features, fill(features, read(source, settings))


@pytest.mark.parametrize(
    ("called", "network"),
    [
        ("resnet18", "resnet18"),
        ("mobilenetv2", "mobilenet_v2"),
        ("swin_t", "swin_t"),
    ],
)
def test_files_of_torchvision_fit(called: str, network: str, tmp_path: Path) -> None:
    weights = torchvision.models.get_model(network).state_dict()
    settings = Backbone(name=called, stages=(2, 3))
    features, left_out = filled(saved(weights, tmp_path / "w.pth"), settings)
    mine = {n: w for n, w in features.state_dict().items() if not n.startswith("norms.")}
    assert len(mine) > 50
    assert all(tensor.equal(weights[name]) for name, tensor in mine.items())
    assert {"resnet18": "fc", "mobilenetv2": "classifier", "swin_t": "head"}[called] in left_out


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_every_kind_of_file_is_read(suffix: str, tmp_path: Path) -> None:
    weights = classifier()
    features, left_out = filled(saved(weights, tmp_path / f"w{suffix}"))
    assert all(tensor.equal(weights[name]) for name, tensor in features.state_dict().items())
    assert left_out == ["fc"]


def with_prefix(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    ("wrap", "left_out"),
    [
        (lambda weights: {"state_dict": weights, "meta": {"epoch": 3}}, ["fc"]),
        (lambda weights: {"model": with_prefix("module.", weights)}, ["fc"]),
        (
            lambda weights: {
                "state_dict": {**with_prefix("backbone.", weights), "neck.x": torch.rand(1)}
            },
            ["fc", "neck"],
        ),
    ],
    ids=["training state", "data parallel", "detector"],
)
def test_what_stands_around_the_weights_is_taken_off(
    wrap: Any, left_out: list[str], tmp_path: Path
) -> None:
    weights = classifier()
    features, words = filled(saved(wrap(weights), tmp_path / "w.pth"))
    assert all(tensor.equal(weights[name]) for name, tensor in features.state_dict().items())
    assert words == left_out


def test_a_detector_of_ours_gives_its_backbone(tmp_path: Path) -> None:
    teacher = detectors.build("gfl-quick-swin-t-w8", ["cat"])
    checkpoint.save(teacher, tmp_path / "t.safetensors")
    settings = teacher.architecture.backbone
    features, left_out = filled(str(tmp_path / "t.safetensors"), settings)
    assert left_out == ["head", "neck"]
    expected = teacher.backbone.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in features.state_dict().items())


def test_old_files_that_count_no_batches_fit(tmp_path: Path) -> None:
    weights = {n: w for n, w in classifier().items() if not n.endswith("num_batches_tracked")}
    features, _ = filled(saved(weights, tmp_path / "w.pth"))
    assert features.state_dict()["layer4.1.bn2.weight"].equal(weights["layer4.1.bn2.weight"])


def test_weights_of_a_timm_model_reach_its_maps(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = timm.create_model("convnext_atto", pretrained=False).eval()
    settings = Backbone(name="timm/convnext_atto", stages=(2, 3))
    file = saved(whole.state_dict(), tmp_path / "w.safetensors")
    features, left_out = filled(file, settings)
    assert left_out == ["head"]
    images = torch.rand(1, 3, 64, 64)
    expected = whole.forward_intermediates(images, indices=[1, 2], intermediates_only=True)
    for actual, wanted in zip(features.eval()(images), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv1.weight": None}, "1 tensors missing, layer1.0.conv1.weight first"),
        ({"layer9.weight": torch.rand(1)}, "1 tensors unexpected, layer9.weight first"),
        (
            {"conv1.weight": torch.rand(8, 3, 7, 7)},
            r"1 tensors of another shape, conv1.weight \(8, 3, 7, 7\) instead of \(4, 3, 7, 7\)",
        ),
    ],
)
def test_a_partial_match_is_refused(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    weights = {n: w for n, w in {**classifier(), **change}.items() if w is not None}
    with pytest.raises(UserError, match=message):
        filled(saved(weights, tmp_path / "w.pth"))


def test_weights_of_another_network_are_refused_with_counts(tmp_path: Path) -> None:
    file = saved(classifier(Backbone(name="mobilenetv2", width=8)), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth does not fit .* resnet18 .*missing.*unexpected"):
        filled(file)


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", {"conv1.weight": Bomb()}, "nothing of it was run"),
        ("w.pth", {"epoch": 3}, "no tensors"),
        ("w.pth", [1, 2], "no tensors"),
        ("w.bin", {}, "ends in .pth"),
    ],
)
def test_a_file_of_something_else_is_refused(
    name: str, content: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        read(saved(content, tmp_path / name), SMALL)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_cut_file_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    file = Path(saved(classifier(), tmp_path / f"w{suffix}"))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"cut short"):
        read(str(file), SMALL)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"no file nowhere\.pth"):
        read("nowhere.pth", SMALL)


@pytest.mark.parametrize(
    ("settings", "address", "name"),
    [
        (R18, "https://download.pytorch.org/models/resnet18-f37072fd.pth", "resnet18-f37072fd.pth"),
        (
            Backbone(name="resnext101_32x4d"),
            "https://huggingface.co/timm/resnext101_32x4d.gluon_in1k/resolve/main/model.safetensors",
            "resnext101_32x4d.gluon_in1k.safetensors",
        ),
        (
            Backbone(name="timm/mobilenetv2_050"),
            "https://huggingface.co/timm/mobilenetv2_050.lamb_in1k/resolve/main/model.safetensors",
            "mobilenetv2_050.lamb_in1k.safetensors",
        ),
    ],
)
def test_imagenet_weights_have_an_address(settings: Backbone, address: str, name: str) -> None:
    assert pretrained._address(settings) == (address, name)


@pytest.mark.parametrize("name", [*pretrained.TORCHVISION, *pretrained.TIMM])
def test_every_published_name_is_a_backbone_with_an_address(name: str) -> None:
    assert pretrained._address(Backbone(name=name))[0].startswith("https://")
    with torch.device("meta"):
        build_backbone(Backbone(name=name))


@pytest.mark.parametrize(
    "settings", [SMALL, Backbone(name="resnet50", style="caffe"), Backbone(name="resnext152_1x64d")]
)
def test_what_nobody_has_published_is_not_looked_for(settings: Backbone) -> None:
    with pytest.raises(UserError, match="no ImageNet weights to download"):
        read("imagenet", settings)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hub" / "checkpoints"


def test_weights_are_downloaded_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = classifier(R18)
    published = Path(saved(weights, tmp_path / "published.pth"))
    monkeypatch.setattr(pretrained, "_address", lambda _: (published.as_uri(), "mine.pth"))
    features, _ = filled("imagenet", R18)
    assert features.state_dict()["conv1.weight"].equal(weights["conv1.weight"])
    published.unlink()
    assert read("imagenet", R18).file == cache / "mine.pth"


def test_damaged_downloads_are_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = Path(saved(classifier(), tmp_path / "published.pth"))
    address = (published.as_uri(), "mine-0123abcd.pth")
    monkeypatch.setattr(pretrained, "_address", lambda _: address)
    with pytest.raises(UserError, match="invalid hash value"):
        read("imagenet", R18)
    assert not list(cache.iterdir())


def test_without_a_network_it_says_where_to_put_the_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(UserError, match="cannot be downloaded") as caught:
        read("imagenet", R18)
    assert str(cache / "resnet18-f37072fd.pth") in str(caught.value)
    assert "https://download.pytorch.org" in str(caught.value)


@pytest.mark.usefixtures("cache")
def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "PATIENCE", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x.pth"
        monkeypatch.setattr(pretrained, "_address", lambda _: (address, "x.pth"))
        began = time.monotonic()
        with pytest.raises(UserError, match="timed out"):
            read("imagenet", R18)
    assert time.monotonic() - began < 5
    assert socket.getdefaulttimeout() is None
