"""What a family of detectors brings along: how one is built, and what its names stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from detdistill.detectors.architecture import AnyArchitecture
from detdistill.detectors.backbones import Backbone
from detdistill.detectors.detector import Detector

Kind = Literal["mini", "quick"]
"""Two starts of the small detectors, which are the same networks; see `DEVIATIONS`."""

SMALL_CHANNELS = 32
DEVIATIONS = MappingProxyType({"mini": 0.01, "quick": math.sqrt(2 / (9 * SMALL_CHANNELS))})
"""Where the convolutions of a small head start: as published, or as He et al. (2015) advise.

The first suits long trainings from pretrained backbones; from scratch, within some hundred steps,
the second is far ahead. The networks are the same.
"""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One entry of the list of families."""

    architecture: type[Any]
    """A frozen dataclass of plain values and of such dataclasses; see `AnyArchitecture`."""
    build: Callable[[Any], Detector]
    """A detector with fresh weights from an architecture."""
    full: Callable[[Backbone, tuple[str, ...]], AnyArchitecture]
    """The detector of the papers on a backbone, of which the family says the stages."""
    small: Callable[[Backbone, tuple[str, ...], Kind], AnyArchitecture]
    """A detector for images of about 128 pixels on a narrow backbone, likewise."""
