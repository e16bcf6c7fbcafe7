"""Points, pixels, distances and circles: the one place that says how they are counted.

Points are (x, y) in pixels, arrays are indexed [y, x], pixel centres lie at integer coordinates; a pixel belongs to a
circle when its centre is nearer than or as near as the radius. The box [x0, y0, w, h] covers w x h whole pixels.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree


def clip_points(points_xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """Points moved to the nearest place inside of the image: float64 (N, 2)."""
    return np.clip(np.asarray(points_xy, float).reshape(-1, 2), 0, [width - 1, height - 1])


def own_pixels(points_xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixel of each point, int64 (N, 2) as (x, y): rounded half up, inside of the image."""
    return np.floor(clip_points(points_xy, height, width) + 0.5).astype(np.int64)


def neighbour_distances(points_xy: np.ndarray) -> np.ndarray:
    """Distance of each point to the nearest point elsewhere, float64 (N,), pixels.

    Points at exactly the same place count as one (our choice: a duplicate must not give radius 0). A point without
    any other place to go to has distance infinity.
    """
    points = np.asarray(points_xy, float).reshape(-1, 2)
    places, inverse = np.unique(points, axis=0, return_inverse=True)
    if len(places) < 2:
        return np.full(len(points), np.inf)
    distance, _ = cKDTree(places).query(places, k=2)
    return distance[inverse.ravel(), 1]


def local_spacing(points_xy: np.ndarray, distances: np.ndarray, neighbours: int = 6) -> np.ndarray:
    """Median nearest-neighbour distance of a point and its nearest neighbours, float64 (N,), pixels.

    A steadier measure of the local scale than a single distance (our choice).
    """
    points = np.asarray(points_xy, float).reshape(-1, 2)
    k = min(neighbours + 1, len(points))
    if k < 2:
        return np.asarray(distances, float).copy()
    _, index = cKDTree(points).query(points, k=k)
    return np.median(np.asarray(distances, float)[index], axis=1)


def circle_box(x: float, y: float, radius: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Window (x0, y0, w, h) of the pixels within `radius` of a point in the image.

    Along an axis without such a pixel (tiny radius between two centres) it holds the nearest one.
    """
    x0, x1 = _span(x, radius, width)
    y0, y1 = _span(y, radius, height)
    return x0, y0, x1 - x0 + 1, y1 - y0 + 1


def _span(centre: float, radius: float, length: int) -> tuple[int, int]:
    """First and last pixel within `radius` of a place on one axis; at least one."""
    first, last = int(np.ceil(centre - radius)), int(np.floor(centre + radius))
    if first > last:
        first = last = int(np.floor(centre + 0.5))
    first = min(max(first, 0), length - 1)
    return first, max(min(last, length - 1), first)


def squared_distance(x: float, y: float, x0: int, y0: int, w: int, h: int) -> np.ndarray:
    """Squared distance of each pixel of a window to a point, float64 (h, w)."""
    dx = np.arange(x0, x0 + w) - x
    dy = np.arange(y0, y0 + h) - y
    return dy[:, None] ** 2 + dx[None, :] ** 2
