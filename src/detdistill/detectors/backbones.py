"""Feature extractors: ResNets of any depth and width, any timm model with feature maps, and FPN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from detdistill.errors import UserError
from detdistill.structures import Levels

RESNET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BOTTLENECK_FROM = 50


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The settings of a feature extractor."""

    name: str = "resnet50"
    """`resnet18` ... `resnet152`, or `timm/MODEL` for any timm model with feature maps."""
    width: int = 64
    """Channels of the first stage of a ResNet before any expansion: 64, or 16 for R50(1/4)."""
    stages: tuple[int, ...] = (1, 2, 3, 4)
    """Which stages are read; stage 1 has stride 4. Stages after the last one are not built."""
    frozen_stages: int = 0
    """How many stages are frozen, the stem with the first; 0 trains everything."""
    frozen_norm: bool = False
    """Keep BatchNorm's running statistics as they are, in training too."""
    zero_last_norm: bool = True
    """Start every residual block as the identity."""
    style: Literal["pytorch", "caffe"] = "pytorch"
    """Which convolution of a bottleneck has the stride: the middle one, or the first."""


class Features(nn.Module, ABC):
    """Turns images into maps at several strides."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> Levels:
        """(B, 3, H, W) normalised -> the stages that are read, fine to coarse."""


def build_backbone(settings: Backbone) -> Features:
    """A feature extractor with fresh weights.

    Raises:
        UserError: there is no such backbone.
    """
    if settings.name.startswith("timm/"):
        return TimmFeatures(settings)
    depth = settings.name.removeprefix("resnet")
    if not depth.isdigit() or int(depth) not in RESNET_BLOCKS:
        raise UserError(
            f"Unknown backbone {settings.name!r}. Known: "
            + ", ".join(f"resnet{d}" for d in RESNET_BLOCKS)
            + ", timm/MODEL."
        )
    return ResNet(settings)


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

    def __init__(self, inputs: int, width: int, stride: int, style: str = "pytorch") -> None:  # noqa: ARG002
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
    """1×1, 3×3 and 1×1 convolutions beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, style: str = "pytorch") -> None:
        super().__init__()
        outputs = width * self.expansion
        early = style == "caffe" and stride > 1
        self.subsample = Subsample() if early else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1 if early else stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
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
    """A ResNet of any width whose weights are named as torchvision names them."""

    def __init__(self, settings: Backbone) -> None:
        super().__init__()
        depth = int(settings.name.removeprefix("resnet"))
        block = Bottleneck if depth >= BOTTLENECK_FROM else BasicBlock
        self.settings = settings
        self.conv1 = nn.Conv2d(3, settings.width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(settings.width)
        channels = settings.width
        for stage in range(1, max(settings.stages) + 1):
            width = settings.width * 2 ** (stage - 1)
            blocks = []
            for i in range(RESNET_BLOCKS[depth][stage - 1]):
                stride = 2 if i == 0 and stage > 1 else 1
                blocks.append(block(channels, width, stride, settings.style))
                channels = width * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.channels = tuple(
            settings.width * 2 ** (stage - 1) * block.expansion for stage in settings.stages
        )
        self.strides = tuple(2 ** (stage + 1) for stage in settings.stages)
        self._initialise()
        self._freeze()

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

    def train(self, mode: bool = True) -> ResNet:
        """Training mode, except for what is frozen."""
        super().train(mode)
        norms = self.modules() if self.settings.frozen_norm else _modules_of(self._frozen())
        for module in norms:
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if self.settings.zero_last_norm and isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)

    def _frozen(self) -> list[nn.Module]:
        if self.settings.frozen_stages == 0:
            return []
        stages = range(1, self.settings.frozen_stages + 1)
        return [self.conv1, self.bn1, *(self.get_submodule(f"layer{s}") for s in stages)]

    def _freeze(self) -> None:
        for module in self._frozen():
            module.requires_grad_(requires_grad=False)


def _modules_of(modules: list[nn.Module]) -> list[nn.Module]:
    return [inner for module in modules for inner in module.modules()]


class TimmFeatures(Features):
    """A timm model that returns the feature maps at strides 4, 8, 16 and 32."""

    def __init__(self, settings: Backbone) -> None:
        super().__init__()
        import timm

        name = settings.name.removeprefix("timm/")
        if name not in timm.list_models():
            near = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
            raise UserError(f"timm has no model {name!r}. Near: {near}.")
        self.body = timm.create_model(name, features_only=True, pretrained=False)
        info = cast("Any", self.body).feature_info
        strides = info.reduction()
        wanted = [2 ** (stage + 1) for stage in settings.stages]
        if not set(wanted) <= set(strides):
            raise UserError(f"timm model {name!r} has maps at strides {strides}, not {wanted}.")
        self._indices = [strides.index(stride) for stride in wanted]
        self.channels = tuple(info.channels()[i] for i in self._indices)
        self.strides = tuple(wanted)
        self._frozen_norm = settings.frozen_norm

    def forward(self, images: Tensor) -> Levels:
        """See `Features.forward`."""
        maps = self.body(images)
        return tuple(maps[i] for i in self._indices)

    def train(self, mode: bool = True) -> TimmFeatures:
        """Training mode, except for frozen norms."""
        super().train(mode)
        if self._frozen_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class ExtraLevels(ExtraFPNBlock):  # type: ignore[misc]
    """Coarser levels, each a stride-2 convolution of the one before.

    The first is made from the pyramid's last level, or from the backbone's, of `inputs` channels.
    """

    def __init__(self, channels: int, count: int, *, inputs: int | None, relu: bool) -> None:
        super().__init__()
        widths = [inputs or channels] + [channels] * (count - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, channels, 3, stride=2, padding=1) for width in widths
        )
        self.from_backbone = inputs is not None
        self.relu = relu

    def forward(
        self, results: list[Tensor], inputs: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Appends the extra levels to the pyramid."""
        source = inputs[-1] if self.from_backbone else results[-1]
        for i, conv in enumerate(self.convs):
            results.append(conv(F.relu(source) if self.relu and i else source))
            names.append(f"extra{i}")
            source = results[-1]
        return results, names


class Pyramid(nn.Module):
    """A feature pyramid: lateral 1×1, top-down sum, 3×3, and extra levels."""

    def __init__(
        self,
        inputs: tuple[int, ...],
        channels: int,
        extra: int = 0,
        *,
        extra_from: Literal["output", "backbone", "subsampling"] = "output",
        extra_relu: bool = False,
    ) -> None:
        super().__init__()
        source = inputs[-1] if extra_from == "backbone" else None
        levels: ExtraFPNBlock | None = None
        if extra and extra_from == "subsampling":
            levels = LastLevelMaxPool()
        elif extra:
            levels = ExtraLevels(channels, extra, inputs=source, relu=extra_relu)
        self.fpn = FeaturePyramidNetwork(list(inputs), channels, levels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.constant_(cast("Tensor", module.bias), 0.0)

    def forward(self, levels: Levels) -> Levels:
        """Backbone maps -> maps of equal width, fine to coarse."""
        named: Any = OrderedDict((str(i), level) for i, level in enumerate(levels))
        return tuple(self.fpn(named).values())
