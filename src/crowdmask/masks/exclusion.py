"""Exclusion: SAM's mask within the nearest-neighbour exclusion circle (NNEC), one owner for each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from scipy.spatial import cKDTree

from crowdmask.config import Exclusion
from crowdmask.errors import DataError
from crowdmask.geometry import circle_box, clip_points, neighbour_distances, own_pixels, squared_distance
from crowdmask.masks.rle import Window, digest
from crowdmask.tables import by_image, points_of

VERSION = 2


def radii(points_xy: np.ndarray, height: int, width: int, settings: Exclusion) -> np.ndarray:
    """Exclusion radius of each point, float64 (N,), original pixels.

    The distance to the nearest other place (half of it for the constraint `half`, the disjoint circles that both papers
    compare with), clamped to [r_min, r_max] working pixels; a lone point has `lone_share` of the shorter side, clamped
    alike. Source: DPMO-RPS eq. (1), XMask eq. (1); clamp of DPMO-RPS 4.6; the conversion from working pixels is our
    choice.
    """
    distances = neighbour_distances(clip_points(points_xy, height, width))
    if settings.constraint == "half":
        distances = 0.5 * distances
    distances = np.where(np.isfinite(distances), distances, settings.lone_share * min(height, width))
    scale = min(1.0, settings.max_side / max(height, width))
    if settings.min_side is not None:
        scale = max(scale, settings.min_side / min(height, width))
    high = np.inf if settings.r_max is None else settings.r_max / scale
    return np.clip(distances, settings.r_min / scale, high)


def claim_pixels(points_xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """A pixel of its own for each point, int64 (N, 2) as (x, y).

    The pixel the point lies in; where several points share it the lowest row has it and the others take the nearest
    pixel that nobody has (ties: upper, then left).

    Raises:
        ValueError: there are more points than pixels.
    """
    wanted = own_pixels(points_xy, height, width)
    if len(wanted) > height * width:
        raise ValueError(f"{len(wanted)} points cannot each have a pixel of {width} x {height}")
    claims = wanted.copy()
    _, first = np.unique(wanted[:, 1] * width + wanted[:, 0], return_index=True)
    homeless = sorted(set(range(len(wanted))) - set(first.tolist()))
    if not homeless:
        return claims
    free = np.ones((height, width), bool)
    free[wanted[:, 1], wanted[:, 0]] = False
    points = clip_points(points_xy, height, width)
    reached: dict[tuple[int, int], float] = {}
    for i in homeless:
        # Pixels only get fewer: a search from the same pixel need not begin nearer than the last one ended.
        home = int(wanted[i, 0]), int(wanted[i, 1])
        x, y, reached[home] = _nearest_free(points[i, 0], points[i, 1], free, reached.get(home, 2.0))
        claims[i] = x, y
        free[y, x] = False
    return claims


def _nearest_free(x: float, y: float, free: np.ndarray, reach: float) -> tuple[int, int, float]:
    """The nearest free pixel (ties: upper, then left), searched within `reach` first, and the reach that was needed."""
    height, width = free.shape
    while True:
        x0, y0, w, h = circle_box(x, y, reach, height, width)
        distance = squared_distance(x, y, x0, y0, w, h)
        distance[~free[y0 : y0 + h, x0 : x0 + w]] = np.inf
        row, column = divmod(int(np.argmin(distance)), w)
        if distance[row, column] <= reach**2:
            return x0 + column, y0 + row, reach
        reach *= 1.5


def mask_of(
    point: np.ndarray, radius: float, found: Window, height: int, width: int, settings: Exclusion
) -> tuple[Window, str]:
    """SAM's mask within the circle, or the fallback.

    Args:
        point: (x, y) inside of the image, pixels.
        radius: Of the exclusion circle, pixels.
        found: SAM's mask; may be empty.
        height: Of the image.
        width: Of the image.
        settings: Constraint, fallback and smallest areas.

    Returns:
        The mask and its source: 'sam' (the 8-connected component of the point, or the one nearest to it within a
        quarter of the radius), else 'circle' or 'pixel'. Without constraint the mask may leave the circle.

    Source: both papers intersect and fall back to the circle; component rule and smallest area are methods c.3 [R].
    """
    x, y = point
    box = circle_box(x, y, radius, height, width)
    if settings.constraint == "none":
        box = _around(box, found)
    distance = squared_distance(x, y, *box)
    circle = distance <= radius**2
    both = found.cut(*box)
    if settings.constraint != "none":
        both &= circle
    left, top = own_pixels(point, height, width)[0].tolist()
    if both.any():
        component = _component(both, distance, radius, (top - box[1], left - box[0]))
        if component.sum() >= max(settings.min_area_px, settings.min_area_share * np.pi * radius**2, 1):
            return Window(box[0], box[1], component).tight(), "sam"
    if settings.fallback == "pixel":
        return Window(left, top, np.ones((1, 1), bool)), "pixel"
    if settings.fallback == "half":
        circle = distance <= (0.5 * radius) ** 2
    if not circle.any():
        return Window(left, top, np.ones((1, 1), bool)), "circle"
    return Window(box[0], box[1], circle).tight(), "circle"


def _around(box: tuple[int, int, int, int], window: Window) -> tuple[int, int, int, int]:
    """The smallest box that holds a box and a window's mask."""
    tight = window.tight()
    h, w = tight.mask.shape
    if not (h and w):
        return box
    x0, y0 = min(box[0], tight.x0), min(box[1], tight.y0)
    return x0, y0, max(box[0] + box[2], tight.x0 + w) - x0, max(box[1] + box[3], tight.y0 + h) - y0


def _component(mask: np.ndarray, distance: np.ndarray, radius: float, pixel: tuple[int, int]) -> np.ndarray:
    """The component of the point's pixel (row, column), or the nearest one within radius / 4, or nothing."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    own = labels[pixel]
    if own == 0:
        inside = np.where(mask, distance, np.inf)
        nearest = int(np.argmin(inside))
        if inside.ravel()[nearest] > (0.25 * radius) ** 2:
            return np.zeros_like(mask)
        own = labels.ravel()[nearest]
    return labels == own


def overlapping(windows: Sequence[Window]) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i != j, once each, whose windows share pixels."""
    x0 = np.array([w.x0 for w in windows])
    y0 = np.array([w.y0 for w in windows])
    x1 = x0 + np.array([w.mask.shape[1] for w in windows])
    y1 = y0 + np.array([w.mask.shape[0] for w in windows])
    order = np.argsort(x0, kind="stable")
    starts = x0[order]
    for rank, i in enumerate(order):
        last = int(np.searchsorted(starts, x1[i], side="left"))
        others = order[rank + 1 : last]
        for j in others[(y0[others] < y1[i]) & (y1[others] > y0[i]) & (x1[others] > x0[others])]:
            yield int(i), int(j)


def share_pixels(
    windows: Sequence[Window], points: np.ndarray, radius: np.ndarray, claims: np.ndarray, tie: str
) -> list[Window]:
    """Give each contested pixel to one instance.

    Args:
        windows: Masks, which may overlap.
        points: float (N, 2) inside of the image.
        radius: float (N,), pixels.
        claims: int (N, 2) pixel that each instance keeps whatever happens.
        tie: 'nearest' (distance to the point), 'normalised' (distance / radius), 'small_first' (smaller area),
            'last' (higher row). Equal keys: lower row.

    Returns:
        Disjoint masks; only pixels that the mask had before, and the claimed pixel.

    Source: methods c.3 step 4 ([R]).
    """
    kept = [w.mask.copy() for w in windows]
    areas = [w.area for w in windows]
    for i, j in overlapping(windows):
        a, b = windows[i], windows[j]
        left, top = max(a.x0, b.x0), max(a.y0, b.y0)
        right = min(a.x0 + a.mask.shape[1], b.x0 + b.mask.shape[1])
        bottom = min(a.y0 + a.mask.shape[0], b.y0 + b.mask.shape[0])
        in_a = np.s_[top - a.y0 : bottom - a.y0, left - a.x0 : right - a.x0]
        in_b = np.s_[top - b.y0 : bottom - b.y0, left - b.x0 : right - b.x0]
        both = a.mask[in_a] & b.mask[in_b]
        if not both.any():
            continue
        first: np.ndarray | bool
        if tie == "last":
            first = i > j
        elif tie == "small_first":
            first = (areas[i], i) < (areas[j], j)
        else:
            box = left, top, right - left, bottom - top
            key_i, key_j = (squared_distance(points[k, 0], points[k, 1], *box) for k in (i, j))
            if tie == "normalised":
                key_i, key_j = key_i / radius[i] ** 2, key_j / radius[j] ** 2
            first = (key_i <= key_j) if i < j else (key_i < key_j)
        kept[i][in_a] &= ~(both & np.logical_not(first))
        kept[j][in_b] &= ~(both & first)
    return keep_claims([Window(w.x0, w.y0, m) for w, m in zip(windows, kept, strict=True)], claims)


def keep_claims(windows: Sequence[Window], claims: np.ndarray) -> list[Window]:
    """Add to each mask its claimed pixel and take from it those of the others."""
    result = []
    tree = cKDTree(claims) if len(claims) else None
    for i, window in enumerate(windows):
        h, w = window.mask.shape
        mask = window.mask
        if tree is not None and h and w:
            centre = window.x0 + (w - 1) / 2, window.y0 + (h - 1) / 2
            near = np.array(tree.query_ball_point(centre, 0.5 * float(np.hypot(w, h)) + 1), int)
            others = claims[near[near != i]] - [window.x0, window.y0]
            others = others[(others >= 0).all(1) & (others < [w, h]).all(1)]
            mask = mask.copy()
            mask[others[:, 1], others[:, 0]] = False
        x, y = int(claims[i, 0]), int(claims[i, 1])
        if not (window.x0 <= x < window.x0 + w and window.y0 <= y < window.y0 + h):
            x0, y0 = (min(window.x0, x), min(window.y0, y)) if h and w else (x, y)
            x1, y1 = (max(window.x0 + w, x + 1), max(window.y0 + h, y + 1)) if h and w else (x + 1, y + 1)
            mask = Window(window.x0, window.y0, mask).cut(x0, y0, x1 - x0, y1 - y0)
            window = Window(x0, y0, mask)
        mask[y - window.y0, x - window.x0] = True
        result.append(Window(window.x0, window.y0, mask).tight())
    return result


def exclude_image(
    points_xy: np.ndarray, found: Sequence[Window], height: int, width: int, settings: Exclusion
) -> list[dict[str, Any]]:
    """Final automatic mask of each point.

    Args:
        points_xy: float (N, 2) annotated points, pixels.
        found: SAM's mask of each point.
        height: Of the image, pixels.
        width: Of the image, pixels.
        settings: Radius, fallback and tie-break.

    Returns:
        For each point, in order: source, radius_px, lost_px, area, sha256 and the window columns.
    """
    points = clip_points(points_xy, height, width)
    if len(points) == 0:
        return []
    radius = radii(points, height, width, settings)
    claims = claim_pixels(points, height, width)
    made = [mask_of(points[i], radius[i], found[i], height, width, settings) for i in range(len(points))]
    before = keep_claims([window for window, _ in made], claims)
    after = share_pixels(before, points, radius, claims, settings.tie) if settings.disjoint else before
    rows = []
    for i, window in enumerate(after):
        area = window.area
        alone = area == 1 and before[i].area > 1
        rows.append(
            {
                "source": "pixel" if alone else made[i][1],
                "radius_px": float(radius[i]),
                "lost_px": before[i].area - area,
                "area": area,
                "sha256": digest(window),
                **window.columns(),
            }
        )
    return rows


def rows(
    images: Iterable[dict[str, Any]], segments: Iterable[dict[str, Any]], settings: Exclusion
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.MASKS` for rows of `tables.IMAGES` and `tables.SEGMENT`, one image at a time.

    Raises:
        DataError: the tables do not have the same points.
    """
    groups = by_image(segments)
    for image in images:
        key = image["split"], image["image_id"]
        points = points_of(image)
        found = groups.get(key, [])
        if len(found) != len(points):
            raise DataError("/".join(key), f"{len(points)} points but {len(found)} SAM masks", "Run again.")
        windows = [Window.from_columns(row) for row in found]
        for point_id, row in enumerate(exclude_image(points, windows, image["height"], image["width"], settings)):
            yield {
                "split": key[0],
                "image_id": key[1],
                "point_id": point_id,
                "x": float(points[point_id, 0]),
                "y": float(points[point_id, 1]),
                "verified": False,
                "author": None,
                "score": found[point_id]["score"],
                **row,
            }
