"""Backbones: images in, maps at several strides out; and the pyramid that stands on them."""

from detdistill.detectors.backbones.build import build_backbone
from detdistill.detectors.backbones.features import Backbone, Features
from detdistill.detectors.backbones.mobilenet import MobileNetV2
from detdistill.detectors.backbones.naming import NAMES, named
from detdistill.detectors.backbones.pyramid import Pyramid
from detdistill.detectors.backbones.resnet import ResNet, Subsample
from detdistill.detectors.backbones.swin import Swin
from detdistill.detectors.backbones.timm_models import TimmFeatures

__all__ = [
    "NAMES",
    "Backbone",
    "Features",
    "MobileNetV2",
    "Pyramid",
    "ResNet",
    "Subsample",
    "Swin",
    "TimmFeatures",
    "build_backbone",
    "named",
]
