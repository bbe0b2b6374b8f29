"""Where in an image it matters: maps of weights over the cells, made from truth and predictions.

Everything here is constant to the gradient. Shape letters: B images, P points (the cells of all
levels, fine to coarse, row by row), A boxes per point, K classes, G padded objects. Computed in
float64 where orders and thresholds decide and rounding must not.
"""

from __future__ import annotations

from detdistill.masks.chance import as_many, scattered, uniform
from detdistill.masks.harmony import Harmony, ObjectQuality, harmony, named_and_found
from detdistill.masks.near import Decay, Origin, Reach, Vicinity, nearness
from detdistill.masks.objects import (
    background_shares,
    cell_centers,
    gaussian_cells,
    inside_any,
    inside_objects,
    object_cells,
    object_level,
    object_shares,
    objects_seen,
    pyramid,
    shares,
)
from detdistill.masks.order import (
    by_group,
    count_of,
    most_different,
    peaks,
    ranking,
    top_points,
    weak_points,
)
from detdistill.masks.priors import (
    FineGrainedScope,
    RegionDistance,
    adaptive_threshold,
    fine_grained,
    mean_plus_deviation,
    nearest_priors,
    objects_of,
    valuable_region,
)
from detdistill.masks.quality import ClassScore, PointQuality, point_quality
from detdistill.masks.suppression import survivors

__all__ = [
    "ClassScore",
    "Decay",
    "FineGrainedScope",
    "Harmony",
    "ObjectQuality",
    "Origin",
    "PointQuality",
    "Reach",
    "RegionDistance",
    "Vicinity",
    "adaptive_threshold",
    "as_many",
    "background_shares",
    "by_group",
    "cell_centers",
    "count_of",
    "fine_grained",
    "gaussian_cells",
    "harmony",
    "inside_any",
    "inside_objects",
    "mean_plus_deviation",
    "most_different",
    "named_and_found",
    "nearest_priors",
    "nearness",
    "object_cells",
    "object_level",
    "object_shares",
    "objects_of",
    "objects_seen",
    "peaks",
    "point_quality",
    "pyramid",
    "ranking",
    "scattered",
    "shares",
    "survivors",
    "top_points",
    "uniform",
    "valuable_region",
    "weak_points",
]
