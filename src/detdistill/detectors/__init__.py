"""Detectors: the students and the teachers."""

from detdistill.detectors.architecture import AnyArchitecture, Architecture
from detdistill.detectors.detector import Detector, parameter_count
from detdistill.detectors.folding import folded
from detdistill.detectors.presets import (
    build,
    describe,
    from_architecture,
    from_card,
    names,
    to_card,
)

__all__ = [
    "AnyArchitecture",
    "Architecture",
    "Detector",
    "build",
    "describe",
    "folded",
    "from_architecture",
    "from_card",
    "names",
    "parameter_count",
    "to_card",
]
