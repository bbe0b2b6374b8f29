"""Convolutions that have taken in the BatchNorm behind them: all that a frozen backbone needs."""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detdistill.detectors.detector import Detector
from detdistill.winograd import WinogradConv2d

SIDE = 64
"""Pixels of the picture by which it is found out which layers follow each other."""

AnyDetector = TypeVar("AnyDetector", bound=Detector)


def folded(detector: AnyDetector) -> AnyDetector:
    """A detector that says the same in evaluation mode, without BatchNorms in its backbone.

    Its numbers differ by the rounding of float32. The one that is given stays as it is; both share
    all parts but the backbone.
    """
    twin = copy.copy(detector)
    twin._modules = {**detector._modules, "backbone": _without_norms(detector.backbone)}  # noqa: SLF001
    return twin


def _without_norms(backbone: nn.Module) -> nn.Module:
    backbone = copy.deepcopy(backbone).eval()
    names = {module: name for name, module in backbone.named_modules()}
    for conv, norm in _neighbours(backbone).items():
        backbone.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        backbone.set_submodule(names[norm], nn.Identity())
    return backbone


@torch.no_grad()
def _neighbours(backbone: nn.Module) -> dict[nn.Conv2d, nn.BatchNorm2d]:
    """Each convolution whose output goes to a BatchNorm, and that norm.

    Norms that do more, such as those of timm with an activation, are none of them.
    """
    found: dict[nn.Conv2d, nn.BatchNorm2d] = {}
    made: list[tuple[nn.Conv2d, Tensor]] = []

    def remember(conv: nn.Module, _inputs: object, output: Tensor) -> None:
        made.append((cast("nn.Conv2d", conv), output))

    def look_up(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if made and made[-1][1] is inputs[0]:
            found[made[-1][0]] = cast("nn.BatchNorm2d", norm)

    kinds = (nn.Conv2d, WinogradConv2d)
    hooks = [m.register_forward_hook(remember) for m in backbone.modules() if type(m) in kinds]
    hooks += [
        m.register_forward_pre_hook(look_up)
        for m in backbone.modules()
        if type(m) is nn.BatchNorm2d
    ]
    backbone(next(backbone.parameters()).new_zeros((1, 3, SIDE, SIDE)))
    for hook in hooks:
        hook.remove()
    return found
