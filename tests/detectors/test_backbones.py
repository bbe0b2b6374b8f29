from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from detdistill.detectors.backbones import Backbone, Pyramid, ResNet, Subsample, build_backbone
from detdistill.errors import UserError

X101 = "resnext101_32x4d"
TORCHVISIONS = {
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    "resnext50_32x4d": "resnext50_32x4d",
    "resnext101_64x4d": "resnext101_64x4d",
    "mobilenetv2": "mobilenet_v2",
    "swin_t": "swin_t",
}
"""What torchvision calls our backbones."""


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_weights_are_named_as_torchvision_names_them(name: str) -> None:
    with torch.device("meta"):
        features = build_backbone(Backbone(name=name))
        theirs = torchvision.models.get_model(TORCHVISIONS[name]).state_dict()
    ours = {n: w.shape for n, w in features.state_dict().items() if not n.startswith("norms.")}
    assert ours == {n: w.shape for n, w in theirs.items() if not n.startswith(features.ignored)}
    assert len(theirs) > len(ours)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("resnet18", [f"layer{stage}" for stage in (1, 2, 3, 4)]),
        ("resnet50", [f"layer{stage}" for stage in (1, 2, 3, 4)]),
        ("resnext50_32x4d", [f"layer{stage}" for stage in (1, 2, 3, 4)]),
        ("mobilenetv2", ["features.3", "features.6", "features.13", "features.18"]),
        ("swin_t", ["features.1", "features.3", "features.5", "features.7"]),
    ],
)
def test_torchvision_weights_give_torchvision_features(name: str, nodes: list[str]) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(TORCHVISIONS[name]).eval()
    ours = build_backbone(Backbone(name=name)).eval()
    weights = {n: w for n, w in theirs.state_dict().items() if not n.startswith(ours.ignored)}
    ours.fill(weights)
    reader = create_feature_extractor(theirs, nodes)
    images = torch.rand(1, 3, 64, 96)
    read = reader(images).values()
    if name == "swin_t":
        read = [F.layer_norm(level, level.shape[-1:]).permute(0, 3, 1, 2) for level in read]
    for actual, expected in zip(ours(images), read, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


SMALL = {
    name: Backbone(name=name, width=width)
    for name, width in (
        ("resnet18", 8),
        ("resnet50", 4),
        ("resnext50_32x4d", 16),
        ("mobilenetv2", 16),
        ("swin_t", 16),
        ("timm/mobilenetv2_050", 64),
    )
}
KINDS = pytest.mark.parametrize("settings", SMALL.values(), ids=SMALL)


@KINDS
@pytest.mark.parametrize("size", [(64, 96), (33, 70), (1, 5)])
def test_maps_have_the_strides_that_they_say(settings: Backbone, size: tuple[int, int]) -> None:
    features = build_backbone(settings).eval()
    height, width = size
    assert features.strides == (4, 8, 16, 32)
    assert [tuple(level.shape) for level in features(torch.rand(2, 3, height, width))] == [
        (2, channels, -(-height // stride), -(-width // stride))
        for channels, stride in zip(features.channels, features.strides, strict=True)
    ]


@KINDS
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_later_stages_change_nothing_that_was_read(settings: Backbone, stage: int) -> None:
    whole, part = (
        build_backbone(dataclasses.replace(settings, stages=stages)).eval()
        for stages in ((1, 2, 3, 4), (stage,))
    )
    weights = whole.state_dict()
    part.load_state_dict({name: weights[name] for name in part.state_dict()})
    images = torch.rand(1, 3, 40, 56)
    torch.testing.assert_close(part(images)[0], whole(images)[stage - 1])
    assert settings.name.startswith("timm/") or len(part.state_dict()) < len(weights)


@KINDS
def test_the_layout_of_the_images_does_not_matter(settings: Backbone) -> None:
    torch.manual_seed(0)
    settings = dataclasses.replace(settings, drop_path=0.0)
    images, gradients, found = torch.rand(2, 3, 64, 48).double(), [], []
    features = build_backbone(settings).double()
    for layout in (torch.contiguous_format, torch.channels_last):
        features = copy.deepcopy(features).to(memory_format=layout)
        features.zero_grad()
        levels = features(images.contiguous(memory_format=layout))
        sum(level.square().mean() for level in levels).backward()
        found.append(levels)
        gradients.append(next(features.parameters()).grad.clone())
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_published_channels() -> None:
    with torch.device("meta"):
        names = (X101, "resnet50", "mobilenetv2", "swin_t")
        channels = {name: build_backbone(Backbone(name=name)).channels for name in names}
    assert channels["mobilenetv2"] == (24, 32, 96, 1280)
    assert channels["swin_t"] == (96, 192, 384, 768)
    assert channels[X101] == channels["resnet50"] == (256, 512, 1024, 2048)


def test_a_quarter_of_the_width_has_a_quarter_of_the_channels() -> None:
    backbone = build_backbone(Backbone(name="resnet50", width=16, stages=(2, 3, 4)))
    assert (backbone.channels, backbone.strides) == ((128, 256, 512), (8, 16, 32))


def test_stages_after_the_last_one_that_is_read_are_not_built() -> None:
    backbone = build_backbone(Backbone(name="resnet18", width=8, stages=(1, 2, 3)))
    assert not hasattr(backbone, "layer4")


def moved(settings: Backbone) -> set[str]:
    """Names of what three training steps change, buffers with it."""
    torch.manual_seed(0)
    features = build_backbone(settings).train()
    before = {name: tensor.clone() for name, tensor in features.state_dict().items()}
    trained = [p for p in features.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        sum(level.square().mean() for level in features(torch.rand(2, 3, 64, 64))).backward()
        optimizer.step()
    return {n for n, tensor in features.state_dict().items() if not tensor.equal(before[n])}


@pytest.mark.parametrize(
    ("name", "still", "moves"),
    [
        ("resnet18", ("conv1.", "bn1.", "layer1."), "layer2.0.conv1.weight"),
        ("resnext50_32x4d", ("conv1.", "bn1.", "layer1."), "layer2.0.conv1.weight"),
        ("mobilenetv2", tuple(f"features.{i}." for i in range(4)), "features.4.conv.0.0.weight"),
        ("swin_t", ("features.0.", "features.1.", "norms.1."), "features.2.reduction.weight"),
    ],
)
def test_a_frozen_stage_does_not_move(name: str, still: tuple[str, ...], moves: str) -> None:
    changed = moved(dataclasses.replace(SMALL[name], frozen_stages=1, zero_last_norm=False))
    assert moves in changed
    assert not [name for name in changed if name.startswith(still)]
    free = moved(dataclasses.replace(SMALL[name], zero_last_norm=False))
    assert all(any(n.startswith(beginning) for n in free) for beginning in still)


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"swin_t"}))
def test_frozen_norms_keep_their_statistics_and_train_their_scales(name: str) -> None:
    settings = dataclasses.replace(SMALL[name], zero_last_norm=False)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert any(n.endswith(statistics) for n in moved(settings))
    changed = moved(dataclasses.replace(settings, frozen_norm=True))
    assert not [n for n in changed if n.endswith(statistics)]
    assert any(n.endswith(("bn1.weight", "features.0.1.weight")) for n in changed)


def test_a_frozen_swin_leaves_no_block_out() -> None:
    settings = dataclasses.replace(SMALL["swin_t"], frozen_stages=4, drop_path=0.9)
    features, images = build_backbone(settings).train(), torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(features(images), features(images))
    free = build_backbone(dataclasses.replace(settings, frozen_stages=0)).train()
    assert not torch.equal(free(images)[3], free(images)[3])


def test_stages_of_a_timm_model_cannot_be_frozen() -> None:
    with pytest.raises(UserError, match="only the statistics"):
        build_backbone(Backbone(name="timm/mobilenetv2_050", frozen_stages=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Backbone(name="resnet18", frozen_stages=5), "0 to 4"),
        (Backbone(name="resnext50_32x4d", width=8), "too narrow"),
        (Backbone(name="swin_t", width=86), "heads"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: Backbone, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(settings)


def test_subsampling_before_a_1x1_convolution_is_that_convolution_at_stride_2() -> None:
    conv = torch.nn.Conv2d(8, 8, 1, stride=2, bias=False)
    x = torch.rand(2, 8, 9, 12)
    whole = torch.nn.functional.conv2d(Subsample()(x), conv.weight)
    torch.testing.assert_close(whole, conv(x))


@pytest.mark.parametrize("style", ["pytorch", "caffe"])
def test_a_bottleneck_has_its_stride_where_its_style_says(style: str) -> None:
    block = ResNet(Backbone(name="resnet50", width=4, style=style)).layer2[0].eval()
    images = torch.rand(1, 16, 9, 12)
    first, middle = (2, 1) if style == "caffe" else (1, 2)
    inner = torch.nn.functional.conv2d(images, block.conv1.weight, stride=first)
    inner = torch.nn.functional.conv2d(
        block.bn1(inner).relu(), block.conv2.weight, stride=middle, padding=1
    )
    expected = block.bn3(block.conv3(block.bn2(inner).relu())) + block.downsample(images)
    torch.testing.assert_close(block(images), expected.relu())


@pytest.mark.parametrize(
    "settings",
    [
        Backbone(name="resnet18", width=8, stages=(1, 2, 3)),
        Backbone(name="resnet50", width=4, stages=(1, 2, 3), style="caffe"),
    ],
)
def test_narrow_channels_last_maps_survive_the_backward_pass(settings: Backbone) -> None:
    backbone = ResNet(settings)
    backbone = backbone.to(memory_format=torch.channels_last)
    strides = [m.stride for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    kernels = [m.kernel_size for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert ((1, 1), (2, 2)) not in list(zip(kernels, strides, strict=True))
    images = torch.rand(16, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    sum(level.sum() for level in backbone(images)).backward()
    assert all(p.grad.isfinite().all() for p in backbone.parameters())


def test_timm_backbones_give_the_stages_that_are_read() -> None:
    backbone = build_backbone(Backbone(name="timm/mobilenetv2_050", stages=(2, 3, 4)))
    levels = backbone(torch.rand(1, 3, 64, 64))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (channels, 64 // stride, 64 // stride)
        for channels, stride in zip(backbone.channels, (8, 16, 32), strict=True)
    ]


def test_of_a_timm_model_nothing_is_there_that_is_not_read() -> None:
    backbone = build_backbone(Backbone(name="timm/resnet18", stages=(1, 2, 3)))
    sum(level.sum() for level in backbone(torch.zeros(1, 3, 64, 64))).backward()
    assert all(weight.grad is not None for weight in backbone.parameters())


@pytest.mark.parametrize("name", ["resnet19", "vgg", "timm/resnet_eighteen", "resnext18_32x4d"])
def test_an_unknown_backbone_is_named(name: str) -> None:
    with pytest.raises(UserError, match=name.rsplit("/", maxsplit=1)[-1]):
        build_backbone(Backbone(name=name))


def test_the_pyramid_adds_coarser_levels_from_its_last_output() -> None:
    pyramid = Pyramid((8, 16, 32), channels=4, extra=2)
    levels = pyramid(tuple(torch.rand(1, c, s, s) for c, s in ((8, 16), (16, 8), (32, 4))))
    assert [tuple(level.shape) for level in levels] == [(1, 4, s, s) for s in (16, 8, 4, 2, 1)]


def test_the_pyramid_adds_coarser_levels_from_the_backbone() -> None:
    pyramid = Pyramid((8, 16, 32), channels=4, extra=2, extra_from="backbone", extra_relu=True)
    maps = tuple(torch.rand(1, c, s, s) for c, s in ((8, 16), (16, 8), (32, 4)))
    levels, convs = pyramid(maps), pyramid.fpn.extra_blocks.convs
    torch.testing.assert_close(levels[3], convs[0](maps[2]))
    torch.testing.assert_close(levels[4], convs[1](levels[3].relu()))
