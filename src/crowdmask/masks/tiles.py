"""Tiles: which crops of an image SAM sees, and which tile answers for which point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crowdmask.config import Tiles
from crowdmask.geometry import clip_points, local_spacing


@dataclass(frozen=True)
class Tile:
    """A crop of the image and the points it answers for.

    Attributes:
        x0: Left column, pixels.
        y0: Top row, pixels.
        w: Width, pixels.
        h: Height, pixels.
        owned: int64 (n,) indices of the points whose mask is taken from this tile.
        zoom: Pixels of SAM's frame for one original pixel.
    """

    x0: int
    y0: int
    w: int
    h: int
    owned: np.ndarray
    zoom: float


def plan(
    points_xy: np.ndarray, distances: np.ndarray, height: int, width: int, frame: int, settings: Tiles
) -> list[Tile]:
    """Cut an image into tiles so that each point is owned by exactly one.

    Args:
        points_xy: float (N, 2), pixels.
        distances: float (N,) nearest-neighbour distances, pixels; infinity for a lone point.
        height: Of the image, pixels.
        width: Of the image, pixels.
        frame: Side of SAM's input, pixels.
        settings: Mode, overlap and zoom range.

    Returns:
        Tiles that own at least one point, in a fixed order. A point is owned by the tile of its zoom level where it
        is farthest from the tile's inner borders (borders of the image do not count).

    Source: methods a.7 ([R]); the choice of the zoom from the local point distance is ours.
    """
    points = clip_points(points_xy, height, width)
    if len(points) == 0:
        return []
    whole = frame / max(height, width)
    if settings.mode == "none":
        return [Tile(0, 0, width, height, np.arange(len(points)), whole)]
    if settings.mode == "fixed":
        sides = np.full(len(points), settings.side)
    else:
        zoom = zoom_levels(local_spacing(points, distances), height, width, frame, settings)
        sides = np.rint(frame / zoom).astype(int)
    tiles = []
    for side in sorted(set(sides.tolist()), reverse=True):
        tiles += _grid(points, np.flatnonzero(sides == side), side, height, width, frame, settings.overlap)
    return tiles


def zoom_levels(spacing: np.ndarray, height: int, width: int, frame: int, settings: Tiles) -> np.ndarray:
    """Zoom of each point in automatic mode, float64 (N,), from its local point spacing in pixels."""
    with np.errstate(divide="ignore"):
        zoom = np.minimum(settings.target_px / np.asarray(spacing, float), settings.max_zoom)
    # Few or distant points say little about the size of heads: never fewer than `across` tiles side by side unless
    # that would enlarge the image.
    zoom = np.maximum(zoom, min(1.0, settings.across * frame / max(height, width)))
    # Half-octave levels keep the number of different tile grids small; rounding must not pass the largest zoom.
    highest = np.floor(2 * np.log2(settings.max_zoom) + 1e-9)
    return 2 ** (np.minimum(np.round(2 * np.log2(zoom)), highest) / 2)


def _grid(
    points: np.ndarray, members: np.ndarray, side: int, height: int, width: int, frame: int, overlap: float
) -> list[Tile]:
    """Tiles of one side for the points `members`."""
    w, h = min(side, width), min(side, height)
    left, top = _starts(width, w, overlap), _starts(height, h, overlap)
    depth_x = _depth(points[members, 0], left, w, width)
    depth_y = _depth(points[members, 1], top, h, height)
    column, row = np.argmax(depth_x, axis=1), np.argmax(depth_y, axis=1)
    tiles = []
    for key in np.unique(row * len(left) + column):
        r, c = divmod(int(key), len(left))
        owned = members[(row == r) & (column == c)]
        tiles.append(Tile(int(left[c]), int(top[r]), w, h, owned, frame / max(w, h)))
    return tiles


def _starts(length: int, side: int, overlap: float) -> np.ndarray:
    """First pixels of the tiles along one axis, evenly spread so that the last ends at the border."""
    if side >= length:
        return np.zeros(1, int)
    count = int(np.ceil((length - side) / max(1.0, side * (1 - overlap)))) + 1
    return np.rint(np.linspace(0, length - side, count)).astype(int)


def _depth(position: np.ndarray, starts: np.ndarray, side: int, length: int) -> np.ndarray:
    """(N, tiles) distance of each position to the nearest border of each tile, -inf outside.

    A tile holds a position when it holds the pixel that the position rounds to (half up).
    """
    before = position[:, None] - starts[None, :] + 0.5
    after = starts[None, :] + side - 0.5 - position[:, None]
    inside = (before >= 0) & (after > 0)
    # The image's own border hides nothing, so it is as good as infinitely far away.
    before = np.where(starts[None, :] == 0, np.inf, before)
    after = np.where(starts[None, :] + side >= length, np.inf, after)
    return np.where(inside, np.minimum(before, after), -np.inf)
