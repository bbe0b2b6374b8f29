"""Settings -> backbone."""

from __future__ import annotations

from detdistill.detectors.backbones.features import Backbone, Features
from detdistill.detectors.backbones.mobilenet import MobileNetV2
from detdistill.detectors.backbones.resnet import ResNet, depth_and_groups
from detdistill.detectors.backbones.swin import Swin
from detdistill.detectors.backbones.timm_models import TimmFeatures
from detdistill.errors import UserError

LAST_STAGE = 4


def build_backbone(settings: Backbone) -> Features:
    """A feature extractor with fresh weights.

    Raises:
        UserError: there is no such backbone, or none with these settings.
    """
    if not 0 <= settings.frozen_stages <= LAST_STAGE:
        raise UserError(
            f"frozen_stages is {settings.frozen_stages}, but must be 0 to {LAST_STAGE}."
        )
    if settings.name.startswith("timm/"):
        return TimmFeatures(settings)
    if settings.name == "mobilenetv2":
        return MobileNetV2(settings)
    if settings.name == "swin_t":
        return Swin(settings)
    if depth_and_groups(settings.name) is not None:
        return ResNet(settings)
    raise UserError(
        f"Unknown backbone {settings.name!r}. Known: resnet18, resnet34, resnet50, resnet101, "
        "resnet152, resnext101_32x4d and the like, mobilenetv2, swin_t, timm/MODEL."
    )
