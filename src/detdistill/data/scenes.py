"""Composes and draws one built-in picture: which shapes, where, in which colours, on what.

Twelve kinds of shapes: four outlines times three fills, each with a favourite hue that it keeps to
only roughly. Boxes are tight around the whole shape, also where another one covers a part of it;
a least share of every shape can be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from detdistill.data import painting
from detdistill.data.dataset import Sample
from detdistill.data.painting import Array, Shape

KINDS = tuple((fill, outline) for outline in painting.OUTLINES for fill in painting.FILLS)
CLASSES = tuple(f"{fill} {outline}" for fill, outline in KINDS)
HUES = tuple(5 * label % len(CLASSES) / len(CLASSES) for label in range(len(CLASSES)))
"""Favourite hues, spread so that neighbours on the colour circle differ in outline and fill."""

TRIES = 8
"""Places that are tried for a shape before the picture goes without it; likewise colours."""

DARK = 0.4
"""Mean of a colour below which its stripes are always paler, never darker."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What pictures look like: the knobs of difficulty."""

    side: int = 128
    objects: tuple[int, int] = (1, 7)
    """Fewest and most objects in a picture."""
    sizes: tuple[float, float] = (10.0, 100.0)
    """Smallest and largest side of an object in pixels; small ones are more frequent."""
    hue_spread: float = 0.08
    """Standard deviation from the class's hue, in turns of the colour circle."""
    clutter: tuple[int, int] = (2, 7)
    """Fewest and most unlabelled strokes, crosses and spots."""
    overlap: float = 0.35
    """Probability that an object is put upon another one."""
    visible: float = 0.55
    """Least share of an object's area that can be seen."""
    contrast: float = 0.25
    """Least distance of an object's colour from what it lies on, in RGB."""
    noise: float = 0.025
    """Standard deviation of a pixel's brightness."""


@lru_cache(maxsize=8192)
def draw(scene: Scene, seed: int, stream: int, index: int) -> Sample:
    """One picture and its truth: the same at every call, and kept for the next one."""
    rng = np.random.default_rng((seed, stream, index))
    shapes = arrange(scene, rng)
    pixels = np.clip(_paint(scene, shapes, rng) * 255 + 0.5, 0, 255).astype(np.uint8)
    return Sample(
        image=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        boxes=torch.tensor([shape.box for shape in shapes]),
        labels=torch.tensor([_label(shape) for shape in shapes]),
        crowd=torch.zeros(len(shapes), dtype=torch.bool),
        id=index,
    )


def arrange(scene: Scene, rng: np.random.Generator) -> list[Shape]:
    """Chooses shapes and places, hindmost first: mostly larger ones behind smaller ones."""
    count = rng.integers(scene.objects[0], scene.objects[1] + 1)
    smallest, largest = scene.sizes
    sizes = smallest * (largest / smallest) ** (rng.random(count) ** 1.15)
    order = np.argsort(-sizes * rng.lognormal(0, 0.5, count))
    plane = _Plane(scene)
    for size in sizes[order]:
        fill, outline = KINDS[rng.integers(len(KINDS))]
        stretch = math.exp(rng.uniform(-0.12, 0.12))
        extent = np.array([size * stretch, size / stretch])
        for _ in range(TRIES):
            box = _place(scene, extent, plane.shapes, rng)
            if plane.add(Shape(box=box, outline=outline, fill=fill)):
                break
    return plane.shapes


def _place(
    scene: Scene, extent: Vector, others: list[Shape], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """A box inside the picture, anywhere or upon another shape; float32 holds it exactly."""
    room = scene.side - extent - 2
    corner = 1 + room * rng.random(2)
    if others and rng.random() < scene.overlap:
        middle = _upon(others[rng.integers(len(others))], extent, rng)
        corner = np.clip(middle - extent / 2, 1, 1 + room)
    corners = np.concatenate([corner, corner + extent]).astype(np.float32)
    left, top, right, bottom = corners.tolist()
    return left, top, right, bottom


def _upon(other: Shape, extent: Vector, rng: np.random.Generator) -> Vector:
    """A point around which something of this extent overlaps another shape's box."""
    left, top, right, bottom = other.box
    turn = rng.uniform(0, 2 * math.pi)
    reach = (extent / 2 + other.radii) * rng.uniform(0.4, 0.95)
    return np.array([left + right, top + bottom]) / 2 + reach * [math.cos(turn), math.sin(turn)]


class _Plane:
    """Which shape can be seen at each pixel; refuses one that would hide too much of another."""

    def __init__(self, scene: Scene) -> None:
        self._visible = scene.visible
        self._top = np.zeros((scene.side, scene.side), dtype=np.int64)  # 0 is the background
        self._areas = np.zeros(1)
        self._seen = np.zeros(1)
        self.shapes: list[Shape] = []

    def add(self, shape: Shape) -> bool:
        """Puts a shape on top, if enough of every shape below remains."""
        mask = shape.distance() < 0
        under = self._top[shape.window]
        left = self._seen - np.bincount(under[mask], minlength=len(self._seen))
        if (left[1:] < self._visible * self._areas[1:]).any():
            return False
        self.shapes.append(shape)
        under[mask] = len(self.shapes)
        self._areas = np.append(self._areas, mask.sum())
        self._seen = np.append(left, mask.sum())
        return True


def _label(shape: Shape) -> int:
    return KINDS.index((shape.fill, shape.outline))


def _paint(scene: Scene, shapes: list[Shape], rng: np.random.Generator) -> Array:
    canvas = painting.background(scene.side, rng)
    for _ in range(rng.integers(scene.clutter[0], scene.clutter[1] + 1)):
        _scatter(canvas, rng)
    for shape in shapes:
        colour = _colour(scene, shape, canvas, rng)
        second = _tint(colour, rng)
        painting.paint(canvas, shape, colour, second, rng.integers(4) * math.pi / 4)
    grain = rng.standard_normal(canvas.shape[:2], dtype=np.float32)
    return canvas + np.float32(scene.noise) * grain[..., None]


def _colour(scene: Scene, shape: Shape, canvas: Array, rng: np.random.Generator) -> Array:
    """A colour near the class's hue that stands out from what is already there."""
    ground = canvas[shape.window].mean(axis=(0, 1))
    for _ in range(TRIES):
        hue = rng.normal(HUES[_label(shape)], scene.hue_spread)
        colour = painting.rgb(hue, rng.uniform(0.55, 1), rng.uniform(0.45, 1))
        if np.linalg.norm(colour - ground) >= scene.contrast:
            break
    return colour


def _tint(colour: Array, rng: np.random.Generator) -> Array:
    """The second colour of stripes: the first one much darker or much paler."""
    darker = colour.mean() > DARK and rng.integers(2) == 1
    return colour * np.float32(0.3) if darker else colour + np.float32(0.7) * (1 - colour)


def _scatter(canvas: Array, rng: np.random.Generator) -> None:
    """One piece of clutter, a spot, a stroke or a cross: nothing with the outline of a class."""
    kind = rng.choice(("spot", "stroke", "cross"))
    centre = (rng.uniform(0, len(canvas)), rng.uniform(0, len(canvas)))
    colour = painting.rgb(rng.random(), rng.uniform(0.3, 1), rng.uniform(0.3, 1))
    if kind == "spot":
        painting.blob(canvas, centre, rng.uniform(3, 14), colour)
        return
    angle, width = rng.uniform(0, math.pi), rng.uniform(1.2, 3)
    half = rng.uniform(5, 25) if kind == "stroke" else rng.uniform(4, 12)
    x, y = half * math.cos(angle), half * math.sin(angle)
    painting.stroke(canvas, centre, (x, y), width, colour)
    if kind == "cross":
        painting.stroke(canvas, centre, (-y, x), width, colour)
