"""Quantiles of Student's t distribution, for intervals from a few runs.

Source: Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from functools import cache

_PLACES = 60
"""Halvings of the range, more than a float has."""
_CERTAINTY = 0.95


def within(t: float, freedom: int) -> float:
    """The probability of a value between -t and t, with so many degrees of freedom."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


@cache
def bound(freedom: int) -> float:
    """The t between whose negative and which a value lies in 95 of 100 cases."""
    low, high = 0.0, 1.0
    while within(high, freedom) < _CERTAINTY:
        high *= 2
    for _ in range(_PLACES):
        middle = (low + high) / 2
        low, high = (low, middle) if within(middle, freedom) > _CERTAINTY else (middle, high)
    return high
