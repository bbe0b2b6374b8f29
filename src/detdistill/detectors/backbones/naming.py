"""Backbones by the names that papers have for them: `r50`, `x101-32x4d`, `swin-t`."""

from __future__ import annotations

import re

from detdistill.detectors.backbones.features import Backbone
from detdistill.detectors.backbones.resnet import BLOCKS, BOTTLENECK_FROM, depth_and_groups

NAMES = (
    *(f"r{depth}" for depth in BLOCKS),
    "x101-32x4d",
    "x101-64x4d",
    "mobilenetv2",
    "swin-t",
)
"""Those of the papers. `-caffe` behind a ResNet of bottlenecks gives it that style."""

SWIN = Backbone(name="swin_t", drop_path=0.2)
"""As detectors are trained with it in Liu et al. (2021)."""

_RESNET = re.compile(r"r(?P<depth>\d+)(-caffe)?")
_RESNEXT = re.compile(r"x(?P<depth>\d+)-(?P<groups>\d+x\d+d)")


def named(text: str) -> Backbone | None:
    """The settings that a name stands for, at full width; None if there is no such backbone.

    Models that `timm/MODEL` names are not looked up yet.
    """
    if text == "swin-t":
        return SWIN
    if text == "mobilenetv2" or text.startswith("timm/"):
        return Backbone(name=text)
    name = ""
    if match := _RESNET.fullmatch(text):
        name = f"resnet{match['depth']}"
    elif match := _RESNEXT.fullmatch(text):
        name = f"resnext{match['depth']}_{match['groups']}"
    found = depth_and_groups(name)
    is_caffe = text.endswith("-caffe")
    if found is None or (is_caffe and found[0] < BOTTLENECK_FROM):
        return None
    return Backbone(name=name, style="caffe" if is_caffe else "pytorch")
