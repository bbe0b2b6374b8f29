"""ResNet and ResNeXt of any depth and width.

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Xie et al.,
"Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from detdistill.detectors.backbones.features import STANDARD_WIDTH, Backbone, Features
from detdistill.errors import UserError
from detdistill.levels import Levels

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""How many blocks each stage has, by depth."""
BOTTLENECK_FROM = 50
PLAIN = (1, STANDARD_WIDTH)
"""Groups of a ResNet's middle convolutions, and channels of each in the first stage."""

_NAME = re.compile(r"resnet(?P<depth>\d+)|resnext(?P<x_depth>\d+)_(?P<groups>\d+)x(?P<each>\d+)d")


def depth_and_groups(name: str) -> tuple[int, tuple[int, int]] | None:
    """`resnext101_32x4d` -> 101 and (32, 4); None if there is no such ResNet or ResNeXt."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    depth = int(match["depth"] or match["x_depth"])
    groups = (int(match["groups"]), int(match["each"])) if match["groups"] else PLAIN
    is_known = depth in BLOCKS and min(groups) > 0
    return (depth, groups) if is_known and (groups == PLAIN or depth >= BOTTLENECK_FROM) else None


class Subsample(nn.Module):
    """Keeps every second row and column.

    In front of a 1×1 convolution it equals that convolution at stride 2, whose backward pass
    corrupts memory for narrow channels-last maps on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ⌈H/2⌉, ⌈W/2⌉)."""
        return F.max_pool2d(x, kernel_size=1, stride=2)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The projection of a block's input; the convolution is called `0` as torchvision's is."""
    if stride == 1 and inputs == outputs:
        return None
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride > 1:
        layers["subsample"] = Subsample()
    layers["0"] = nn.Conv2d(inputs, outputs, 1, bias=False)
    layers["1"] = nn.BatchNorm2d(outputs)
    return nn.Sequential(layers)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that scales what the block adds."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut; the middle one may be grouped."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        *,
        style: str = "pytorch",
        groups: tuple[int, int] = PLAIN,
    ) -> None:
        super().__init__()
        outputs = width * self.expansion
        count, each = groups
        inner = width * each // STANDARD_WIDTH * count
        early = style == "caffe" and stride > 1
        middle = 1 if early else stride
        self.subsample = Subsample() if early else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, middle, padding=1, groups=count, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that scales what the block adds."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4·width, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(self.subsample(x))), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(Features):
    """A ResNet or ResNeXt of any width whose weights are named as torchvision names them."""

    def __init__(self, settings: Backbone) -> None:
        super().__init__(settings)
        depth, block = _blocks(settings)
        self.conv1 = nn.Conv2d(3, settings.width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(settings.width)
        self.ignored = ("fc.",)
        channels = settings.width
        for stage, count in enumerate(BLOCKS[depth], start=1):
            if stage > max(settings.stages):
                self.ignored += (f"layer{stage}.",)
                continue
            width = settings.width * 2 ** (stage - 1)
            blocks = []
            for i in range(count):
                blocks.append(block(channels, width, 2 if i == 0 and stage > 1 else 1))
                channels = width * blocks[0].expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        expansion = channels // width
        self.channels = tuple(
            settings.width * 2 ** (stage - 1) * expansion for stage in settings.stages
        )
        self._initialise()
        self.freeze()

    def forward(self, images: Tensor) -> Levels:
        """See `Features.forward`."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        levels = []
        for stage in range(1, max(self.settings.stages) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            if stage in self.settings.stages:
                levels.append(x)
        return tuple(levels)

    def parts(self, stages: int) -> Sequence[nn.Module]:
        """See `Features.parts`."""
        layers = (self.get_submodule(f"layer{stage}") for stage in range(1, stages + 1))
        return [self.conv1, self.bn1, *layers]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if self.settings.zero_last_norm and isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)


def _blocks(settings: Backbone) -> tuple[int, Callable[[int, int, int], BasicBlock | Bottleneck]]:
    """How deep the network is, and what makes its blocks."""
    found = depth_and_groups(settings.name)
    if found is None:
        raise UserError(f"Unknown backbone {settings.name!r}.")
    depth, groups = found
    if depth < BOTTLENECK_FROM:
        return depth, BasicBlock
    if settings.width * groups[1] < STANDARD_WIDTH:
        raise UserError(
            f"A {settings.name} of width {settings.width} is too narrow for {groups[0]} groups."
        )
    return depth, partial(Bottleneck, style=settings.style, groups=groups)
