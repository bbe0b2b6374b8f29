"""Draws numbers over the cells of feature maps on top of the picture that they were made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from detdistill.levels import Levels
from detdistill.show import colors

_PANEL = 1.9
"""Inches."""
_MARGINS = (1.1, 0.3)
"""Inches beside and above the panels, for words and the scale."""
_PALE = 0.4
"""How far the picture below a map is faded to white."""
_SOMETHING = 1e-12
"""Where all is 0, colours still need a range."""
_OPAQUE = (0.0, 0.85)
"""Nothing is hidden where a map is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What lies under the maps."""

    name: str
    image: Tensor
    """(3, H, W) uint8 RGB, without padding."""
    boxes: Tensor
    """(G, 4) xyxy in pixels, outlined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """The maps of one picture, side by side."""

    label: str
    picture: Picture
    maps: Levels
    """(H, W) per level, of which cell (0, 0) begins at the picture's corner."""
    unit: str
    """What the colours stand for; they begin at 0."""
    scale: str = ""
    """Neighbours with the same unit and scale have the same colours."""


def level_name(stride: int) -> str:
    """What a level of the pyramid is called: `P3` halves a picture three times."""
    return f"P{round(math.log2(stride))}"


def sheet(strips: Sequence[Strip], strides: Sequence[int]) -> Figure:
    """A strip per row, a level per column; every picture stands once, before its strips.

    Args:
        strips: from top to bottom; those of one picture follow each other.
        strides: pixels per cell of each level.
    """
    columns = 1 + len(strides)
    size = (columns * _PANEL + _MARGINS[0], len(strips) * (_PANEL + _MARGINS[1]))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(strips), columns, squeeze=False)
    above = [None, *(strip.picture for strip in strips)]
    for row, strip, last in zip(grid, strips, above, strict=False):
        _draw_picture(row[0], strip.picture, again=strip.picture is last)
        row[1].set_ylabel(strip.label, fontsize="medium")
    for _, together in groupby(zip(grid, strips, strict=True), lambda p: (p[1].unit, p[1].scale)):
        rows, alike = zip(*together, strict=True)
        _draw_maps(figure, np.stack(rows)[:, 1:], alike, strides)
    for axes, stride in zip(grid[0, 1:], strides, strict=True):
        axes.set_title(f"{level_name(stride)}: cells of {stride} px")
    return figure


def _draw_maps(
    figure: Figure, grid: NDArray[Any], strips: Sequence[Strip], strides: Sequence[int]
) -> None:
    """Strips with the same colours, and what these stand for."""
    highest = max(_SOMETHING, *(float(m.max()) for strip in strips for m in strip.maps))
    for row, strip in zip(grid, strips, strict=True):
        for axes, values, stride in zip(row, strip.maps, strides, strict=True):
            colored = _draw_map(axes, strip.picture, values, stride, highest)
    figure.colorbar(colored, ax=grid, label=strips[0].unit, aspect=14 * len(strips), pad=0.01)


def _draw_picture(axes: Axes, picture: Picture, *, again: bool) -> None:
    """The picture with its objects outlined, unless it stands above."""
    axes.axis("off")
    if not again:
        axes.imshow(picture.image.permute(1, 2, 0).numpy())
        axes.set_title(picture.name)
        _outline(axes, picture.boxes)


def _draw_map(
    axes: Axes, picture: Picture, values: Tensor, stride: int, highest: float
) -> AxesImage:
    """One level's map over the picture in pale grey."""
    height, width = picture.image.shape[-2:]
    grey = picture.image.float().mean(dim=0) / 255 * (1 - _PALE) + _PALE
    axes.imshow(grey.numpy(), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    rows, cells = values.shape
    colored = axes.imshow(
        values.numpy(),
        cmap=_colors(),
        vmin=0,
        vmax=highest,
        extent=(0, cells * stride, rows * stride, 0),
    )
    _outline(axes, picture.boxes)
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    return colored


@cache
def _colors() -> Colormap:
    """From clear through orange to almost black, so that it can be read in grey, too."""
    steps = np.linspace(0, 1, 256)
    shades = mpl.colormaps["magma_r"](0.9 * steps)
    shades[:, 3] = np.interp(np.sqrt(steps), (0, 1), _OPAQUE)
    return ListedColormap(shades)


def _outline(axes: Axes, boxes: Tensor) -> None:
    for left, top, right, bottom in boxes.tolist():
        corner, sides = (left, top), (right - left, bottom - top)
        for color, line in ((colors.WHITE, 2.2), (colors.BLACK, 1.0)):
            axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=color, linewidth=line))
