from __future__ import annotations

import pytest
import torch
import torchvision

from detdistill.detectors.backbones import Backbone, Pyramid, ResNet, Subsample, build_backbone
from detdistill.errors import UserError


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_weights_are_named_as_torchvision_names_them(depth: int) -> None:
    ours = build_backbone(Backbone(name=f"resnet{depth}")).state_dict()
    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"resnet{depth}").state_dict()
    theirs = {name: weight for name, weight in theirs.items() if not name.startswith("fc.")}
    assert {n: w.shape for n, w in ours.items()} == {n: w.shape for n, w in theirs.items()}


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_weights_give_torchvision_features(depth: int) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(f"resnet{depth}").eval()
    ours = build_backbone(Backbone(name=f"resnet{depth}")).eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    names = {f"layer{stage}": str(stage) for stage in range(1, 5)}
    reader = torchvision.models._utils.IntermediateLayerGetter(theirs, names)
    images = torch.rand(1, 3, 64, 96)
    for actual, expected in zip(ours(images), reader(images).values(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_a_quarter_of_the_width_has_a_quarter_of_the_channels() -> None:
    backbone = build_backbone(Backbone(name="resnet50", width=16, stages=(2, 3, 4)))
    assert (backbone.channels, backbone.strides) == ((128, 256, 512), (8, 16, 32))


def test_stages_after_the_last_one_that_is_read_are_not_built() -> None:
    backbone = build_backbone(Backbone(name="resnet18", width=8, stages=(1, 2, 3)))
    assert not hasattr(backbone, "layer4")


def test_frozen_stages_and_norms_stay_in_evaluation() -> None:
    backbone = ResNet(Backbone(name="resnet18", width=8, frozen_stages=1)).train()
    assert not backbone.bn1.training
    assert not backbone.layer1[0].bn1.training
    assert backbone.layer2[0].bn1.training
    assert not any(p.requires_grad for p in backbone.layer1.parameters())
    assert all(p.requires_grad for p in backbone.layer2.parameters())
    frozen = ResNet(Backbone(name="resnet18", width=8, frozen_norm=True)).train()
    assert not frozen.layer4[0].bn1.training
    assert frozen.training


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


@pytest.mark.parametrize("name", ["resnet19", "vgg", "timm/resnet_eighteen"])
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
