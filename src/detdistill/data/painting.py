"""The brush of the built-in pictures: outlines, fills, textures and clutter, anti-aliased.

A canvas is (H, W, 3) float32 from 0 to 1. An outline is a function of (u, v), which run from -1 to
1 across the shape's box; it is negative inside and measures distance in half box sides, so that a
picture's edges are soft without rendering it larger first.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
"""Float32, except where a Python number of double precision came in."""
Outline = Callable[[Array, Array], Array]
Fill = Literal["solid", "striped", "hollow"]
Window = tuple[slice, slice]
Point = tuple[float, float]

SQRT5 = np.float32(math.sqrt(5))
STAR_INNER = 0.47
"""Radius of a star's inner corners, where the tips' is 1."""


def _circle(u: Array, v: Array) -> Array:
    distance: Array = np.hypot(u, v) - 1
    return distance


def _square(u: Array, v: Array) -> Array:
    distance: Array = np.maximum(np.abs(u), np.abs(v)) - 1
    return distance


def _triangle(u: Array, v: Array) -> Array:
    distance: Array = np.maximum(v - 1, (2 * np.abs(u) - v - 1) / SQRT5)
    return distance


def _star(u: Array, v: Array) -> Array:
    """Five points up, stretched to fill its box; every tenth of the turn is folded onto one."""
    fifth, tenth = 2 * math.pi / 5, math.pi / 5
    x, y = u * math.sin(fifth), (v + 1) * ((1 + math.cos(tenth)) / 2) - 1
    turn = np.abs((np.arctan2(x, -y) + tenth) % fifth - tenth)
    radius = np.hypot(x, y)
    normal_x, normal_y = 1 - STAR_INNER * math.cos(tenth), STAR_INNER * math.sin(tenth)
    along: Array = normal_x * radius * np.sin(turn) + normal_y * (radius * np.cos(turn) - 1)
    return along / np.float32(math.hypot(normal_x, normal_y))


OUTLINES: dict[str, Outline] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
}

FILLS: tuple[Fill, ...] = ("solid", "striped", "hollow")

RIM = {"circle": 0.3, "square": 0.3, "triangle": 0.24, "star": 0.19}
"""How thick a hollow shape is, in half box sides."""

THINNEST_RIM = 1.4
"""The same in pixels, at least."""

NARROWEST_PERIOD = 3.2
"""Pixels from stripe to stripe, at least."""

WOVEN = 0.5
"""Share of the fine textures that are woven; the others are ribbed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One upright shape: where it is and what it looks like."""

    box: tuple[float, float, float, float]
    outline: str
    fill: Fill

    @property
    def radii(self) -> tuple[float, float]:
        """Half the width and half the height, in pixels."""
        left, top, right, bottom = self.box
        return (right - left) / 2, (bottom - top) / 2

    @property
    def radius(self) -> float:
        """The mean of both."""
        return math.sqrt(math.prod(self.radii))

    @property
    def window(self) -> Window:
        """The rows and columns that the shape can touch."""
        left, top, right, bottom = self.box
        rows = slice(math.floor(top), math.ceil(bottom))
        return rows, slice(math.floor(left), math.ceil(right))

    def coordinates(self) -> tuple[Array, Array]:
        """(1, w) u and (h, 1) v of the pixel centres in the window."""
        left, top, _, _ = self.box
        half_width, half_height = self.radii
        rows, columns = self.window
        u = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - left) / half_width
        v = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5 - top) / half_height
        return u[None, :] - 1, v[:, None] - 1

    def distance(self) -> Array:
        """Signed distance to the outline in pixels, at every pixel of the window."""
        return OUTLINES[self.outline](*self.coordinates()) * np.float32(self.radius)


def coverage(distance: Array) -> Array:
    """The share of a pixel that is inside, of its centre's signed distance to the edge."""
    share: Array = np.clip(0.5 - distance, 0, 1)
    return share


def paint(canvas: Array, shape: Shape, colour: Array, second: Array, angle: float) -> None:
    """Paints a shape; `second` and `angle` are the other colour and the direction of stripes."""
    distance = shape.distance()
    alpha = coverage(distance)
    if shape.fill == "hollow":
        alpha = alpha - coverage(distance + np.float32(rim(shape)))
    if shape.fill == "striped":
        colour = colour + _stripes(shape, angle)[..., None] * (second - colour)
    _, v = shape.coordinates()
    shade = 1 - np.float32(0.1) * v[..., None]
    blend(canvas, shape.window, alpha, colour * shade)


def rim(shape: Shape) -> float:
    """How thick a hollow shape's rim is, in pixels."""
    return max(RIM[shape.outline] * shape.radius, THINNEST_RIM)


def _stripes(shape: Shape, angle: float) -> Array:
    """0 on one kind of stripe and 1 on the other, soft over one pixel."""
    (u, v), (half_width, half_height) = shape.coordinates(), shape.radii
    period = max(NARROWEST_PERIOD, 0.72 * shape.radius)
    along = u * (half_width * math.cos(angle)) + v * (half_height * math.sin(angle))
    distance = np.abs((along / period + 0.25) % 1 - 0.5) * period - period / 4
    return coverage(distance)


def blend(canvas: Array, window: Window, alpha: Array, colour: Array) -> None:
    """Lays a colour, constant or (h, w, 3), over a window of the canvas."""
    under = canvas[window]
    under += alpha[..., None] * (colour - under)


def rgb(hue: float, saturation: float, value: float) -> Array:
    """(3,) colour of a hue in turns."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)


def background(side: int, rng: np.random.Generator) -> Array:
    """A canvas with a muted, clouded texture, sometimes woven or ribbed."""
    hue = rng.random()
    first = rgb(hue, rng.uniform(0.05, 0.4), rng.uniform(0.2, 0.85))
    other = rgb(hue + rng.normal(0, 0.12), rng.uniform(0.05, 0.4), rng.uniform(0.2, 0.85))
    mixture = 0.5 + 0.3 * _clouds(side, 3, rng) + 0.12 * _clouds(side, 9, rng)
    light = 0.035 * _clouds(side, 30, rng)
    depth = rng.uniform(-0.04, 0.05)
    if depth > 0:
        light += depth * _weave(side, rng)
    return first + mixture[..., None] * (other - first) + light[..., None]


def _clouds(side: int, cells: int, rng: np.random.Generator) -> Array:
    """(side, side) smooth noise with standard deviation of roughly one, `cells` bumps across."""
    spread = _spread(side, cells)
    coarse = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    return spread @ coarse @ spread.T


@lru_cache(maxsize=64)
def _spread(side: int, cells: int) -> Array:
    """(side, cells + 1) weights that interpolate linearly between grid points."""
    place = (np.arange(side, dtype=np.float32) + 0.5) * (cells / side)
    away = np.abs(place[:, None] - np.arange(cells + 1, dtype=np.float32))
    weights: Array = np.maximum(0, 1 - away)
    return weights


def _weave(side: int, rng: np.random.Generator) -> Array:
    """(side, side) fine waves from -1 to 1, in one direction or in two."""
    angle, period = rng.uniform(0, math.pi), rng.uniform(3.0, 9.0)
    place = np.arange(side, dtype=np.float32) * np.float32(2 * math.pi / period)
    x, y = place[None, :], place[:, None]
    ribs: Array = np.sin(x * math.cos(angle) + y * math.sin(angle))
    if rng.random() < WOVEN:
        ribs *= np.sin(y * math.cos(angle) - x * math.sin(angle))
    return ribs


def blob(canvas: Array, centre: Point, radius: float, colour: Array) -> None:
    """A soft spot without an edge."""
    window, x, y = _around(canvas, centre, 2 * radius)
    blend(canvas, window, 0.7 * np.exp(-(x * x + y * y) / np.float32(radius * radius)), colour)


def stroke(canvas: Array, centre: Point, reach: Point, width: float, colour: Array) -> None:
    """A straight, thin line with round ends, from `centre - reach` to `centre + reach`."""
    half = math.hypot(*reach)
    cosine, sine = reach[0] / half, reach[1] / half
    window, x, y = _around(canvas, centre, half + width)
    beyond = np.maximum(np.abs(x * cosine + y * sine) - half, 0)
    across = y * cosine - x * sine
    blend(canvas, window, coverage(np.hypot(beyond, across) - width / 2), colour)


def _around(canvas: Array, centre: Point, reach: float) -> tuple[Window, Array, Array]:
    """The window within `reach` of a point, and its pixels' x (1, w) and y (h, 1) from there."""
    side = len(canvas)
    x, y = centre
    columns = slice(max(0, math.floor(x - reach)), min(side, math.ceil(x + reach)))
    rows = slice(max(0, math.floor(y - reach)), min(side, math.ceil(y + reach)))
    across = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x)
    down = np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - y)
    return (rows, columns), across[None, :], down[:, None]
