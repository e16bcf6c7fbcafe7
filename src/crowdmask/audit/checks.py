"""Checks of one annotation against its image: pure functions of arrays, thresholds are our choice.

Points are (x, y) in pixels, pixel centres are whole numbers, and the image covers [-0.5, width - 0.5) x
[-0.5, height - 0.5). Every check returns what it found as `Found`, with rows of the arrays that it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crowdmask.datasets.base import Annotation
from crowdmask.datasets.stage import outside_image

CLOSE_PX = 2.0
"""Two heads are not nearer than this, in pixels."""

EDGE_PX = 1.0
"""Clicks counted from 1 lie at most this far beyond the last pixel's edge."""

PIXELS_A_HEAD = 4.0
"""No head is smaller than this on average, in square pixels."""

BOX_SHARE, BOX_RATIO, BOX_CROWD = 0.5, 25.0, 5
"""In an image of at least `BOX_CROWD` boxes, none covers that share of it, or is that much larger than their median."""

BOX_SLACK_PX = 1.0
"""A point so far outside of its box still counts as on it: boxes are whole numbers, points often not."""

NEAREST_EDGES = 2.0 ** (np.arange(-1, 20) / 2)
"""Edges of the histogram of nearest-neighbour distances, in pixels: 0.7 to 724, half an octave each."""


class Found(NamedTuple):
    """A finding without the image that it is of.

    Attributes:
        kind: Key of `findings.KINDS`.
        message: What is wrong.
        rows: Rows at fault.
    """

    kind: str
    message: str
    rows: tuple[int, ...] = ()


class Bars(NamedTuple):
    """Width in pixels of the flat border on each side of an image."""

    top: int
    bottom: int
    left: int
    right: int


def check_annotation(annotation: Annotation, size_hw: tuple[int, int] | None, bars: Bars) -> list[Found]:
    """All checks of one annotation.

    Args:
        annotation: What the file says; points float64 (N, 2).
        size_hw: Height and width of the image, pixels; None where it cannot be read, which leaves out what needs it.
        bars: Its flat border.
    """
    points = annotation.points_xy
    found = [*check_declared(len(points), annotation.declared), *check_finite(points)]
    # A row that is no place takes part in no other check.
    rows = np.flatnonzero(np.isfinite(points).all(axis=1))
    placed = points[rows]
    checked = [*check_same_spot(placed), *check_close(placed)]
    if size_hw is not None:
        found += [*check_size(annotation.size_hw, *size_hw), *check_crowding(len(points), *size_hw)]
        checked += [*check_inside(placed, *size_hw), *check_padding(placed, *size_hw, bars)]
        if annotation.boxes_xyxy is not None:
            found += check_boxes(annotation.boxes_xyxy, points, *size_hw)
    return found + [Found(kind, text, tuple(rows[list(which)].tolist())) for kind, text, which in checked]


def check_size(size_hw: tuple[int, int] | None, height: int, width: int) -> list[Found]:
    """Whether the size that an annotation claims is that of its image."""
    if size_hw is None or size_hw == (height, width):
        return []
    turned = ", which is turned by 90 degrees" if size_hw == (width, height) else ""
    text = f"says {size_hw[1]} x {size_hw[0]} pixels, the image has {width} x {height}{turned}"
    return [Found("size_mismatch", text)]


def check_declared(count: int, declared: int | None) -> list[Found]:
    """Whether there are points, and as many as the file declares."""
    if declared is not None and declared != count:
        text = f"declares {declared:,} people, has {count:,} points"
        return [Found("declared_differs" if count else "empty_but_declared", text)]
    return [] if count else [Found("no_points", "0 points")]


def check_crowding(count: int, height: int, width: int) -> list[Found]:
    """Whether so many heads can be in the image at all."""
    if count * PIXELS_A_HEAD <= height * width:
        return []
    text = f"{count:,} points on {height * width:,} pixels: less than {PIXELS_A_HEAD:g} pixels a head"
    return [Found("absurd_count", text)]


def check_finite(points_xy: np.ndarray) -> list[Found]:
    """Rows with a coordinate that is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(points_xy).all(axis=1))
    return [Found("not_finite", f"{_points(bad)} not finite", tuple(bad.tolist()))] if bad.size else []


def check_same_spot(points_xy: np.ndarray) -> list[Found]:
    """Rows that repeat the place of an earlier row."""
    again = np.setdiff1d(np.arange(len(points_xy)), _first_rows(points_xy))
    if not again.size:
        return []
    return [Found("duplicate_points", f"{_points(again)} where an earlier one is", tuple(again.tolist()))]


def check_close(points_xy: np.ndarray) -> list[Found]:
    """The later row of each pair of nearest neighbours that are less than `CLOSE_PX` apart, but not on one spot."""
    rows = _first_rows(points_xy)
    distance, other = _nearest(points_xy[rows])
    near = distance < CLOSE_PX
    later = np.unique(np.maximum(rows[near], rows[other[near]]))
    if not later.size:
        return []
    text = f"{_points(later)} less than {CLOSE_PX:g} px from an earlier one; nearest pair {distance.min():.2f} px"
    return [Found("close_points", text, tuple(later.tolist()))]


def check_inside(points_xy: np.ndarray, height: int, width: int) -> list[Found]:
    """Points outside of the image: far, by less than `EDGE_PX`, or because x and y are swapped."""
    outside = outside_image(points_xy, height, width)
    if not outside.any():
        return []
    far = _far_outside(points_xy, height, width)
    swapped = outside_image(points_xy[:, ::-1], height, width)
    if len(points_xy) >= 4 and far.mean() > 0.25 and not swapped.any():
        rows = np.flatnonzero(outside)
        text = f"{_points(rows)} outside of {width} x {height}, none with x and y swapped"
        return [Found("swapped_axes", text, tuple(rows.tolist()))]
    found = []
    if far.any():
        rows = np.flatnonzero(far)
        x, y = points_xy[rows[0]]
        text = f"{_points(rows)} outside of {width} x {height}, first ({x:g}, {y:g})"
        found.append(Found("outside", text, tuple(rows.tolist())))
    edge = np.flatnonzero(outside & ~far)
    if edge.size:
        text = f"{_points(edge)} less than {EDGE_PX:g} px beyond the edge of {width} x {height}, as if counted from 1"
        found.append(Found("beyond_edge", text, tuple(edge.tolist())))
    return found


def check_padding(points_xy: np.ndarray, height: int, width: int, bars: Bars) -> list[Found]:
    """Points of the image that lie on its flat border; not where the whole image is flat."""
    top, bottom, left, right = bars
    if top + bottom >= height or left + right >= width:
        return []
    x, y = points_xy.T
    bar = (y < top - 0.5) | (y >= height - bottom - 0.5) | (x < left - 0.5) | (x >= width - right - 0.5)
    rows = np.flatnonzero(bar & ~outside_image(points_xy, height, width))
    return [Found("on_padding", f"{_points(rows)} on the flat border", tuple(rows.tolist()))] if rows.size else []


def check_boxes(boxes_xyxy: np.ndarray, points_xy: np.ndarray, height: int, width: int) -> list[Found]:
    """Boxes without area, outside, without their point, or of absurd size.

    Args:
        boxes_xyxy: float64 (M, 4), pixels, in point order.
        points_xy: float64 (N, 2), pixels.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    found = []
    if len(boxes_xyxy) != len(points_xy):
        found.append(Found("box_count", f"{len(boxes_xyxy):,} boxes for {len(points_xy):,} points"))
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    finite = np.isfinite(boxes_xyxy).all(axis=1)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        size, centre = high - low, (low + high) / 2
    good = finite & (size > 0).all(axis=1)
    found += _boxes("box_degenerate", ~good, "without area, or not finite")
    away = good.copy()
    # Formats count edges from the centre of the first pixel or from its corner: outside is what is so either way.
    away[good] = outside_image(centre[good], height, width) & outside_image(centre[good] - 0.5, height, width)
    found += _boxes("box_outside", away, f"with the centre outside of {width} x {height}")
    if len(boxes_xyxy) == len(points_xy):
        slack = BOX_SLACK_PX
        held = ((points_xy >= low - slack) & (points_xy <= high + slack)).all(axis=1)
        placed = np.isfinite(points_xy).all(axis=1)
        found += _boxes("box_without_point", good & placed & ~held, "without their point inside")
    if good.sum() >= BOX_CROWD:
        side = np.where(good[:, None], size, 0.0)
        median = float(np.median(side[good].max(axis=1)))
        huge = good & (side.max(axis=1) > BOX_RATIO * median)
        huge |= good & (side.prod(axis=1) > BOX_SHARE * height * width)
        text = f"larger than {BOX_SHARE:.0%} of the image or {BOX_RATIO:g} times the median side of {median:.3g} px"
        found += _boxes("box_absurd", huge, text)
    return found


def nearest_distances(points_xy: np.ndarray) -> np.ndarray:
    """Distance of each distinct point to the nearest other one, float64 (M,), pixels; none of a lone point."""
    distance, _ = _nearest(points_xy[_first_rows(points_xy)])
    return distance[np.isfinite(distance)]


def nearest_histogram(points_xy: np.ndarray) -> list[int]:
    """Distances by the edges `NEAREST_EDGES`; the first bin takes all below, the last all above."""
    distance = np.clip(nearest_distances(points_xy), NEAREST_EDGES[0], NEAREST_EDGES[-1])
    return np.histogram(distance, NEAREST_EDGES)[0].tolist()


def _first_rows(points_xy: np.ndarray) -> np.ndarray:
    """Row at which each distinct place occurs first, ascending."""
    if not len(points_xy):
        return np.zeros(0, np.int64)
    return np.sort(np.unique(points_xy, axis=0, return_index=True)[1])


def _nearest(points_xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest other point, and which that is; infinity and itself for a lone point."""
    from scipy.spatial import cKDTree

    if len(points_xy) < 2:
        return np.full(len(points_xy), np.inf), np.arange(len(points_xy))
    distance, other = cKDTree(points_xy).query(points_xy, k=2)
    # Of two places that differ by less than rounding, a point may be told that it is its own second neighbour.
    own = np.arange(len(points_xy))
    return distance[:, 1], np.where(other[:, 1] == own, other[:, 0], other[:, 1])


def _far_outside(points_xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which points lie `EDGE_PX` or more beyond the edge, bool (N,)."""
    beyond = np.maximum(-0.5 - points_xy, points_xy - (np.array([width, height]) - 0.5))
    return beyond.max(axis=1, initial=-np.inf) >= EDGE_PX


def _boxes(kind: str, bad: np.ndarray, text: str) -> list[Found]:
    rows = np.flatnonzero(bad)
    if not rows.size:
        return []
    return [Found(kind, f"{rows.size:,} box{'es' if rows.size > 1 else ''} {text}", tuple(rows.tolist()))]


def _points(rows: Sequence[int] | np.ndarray) -> str:
    return f"{len(rows):,} point{'s' if len(rows) != 1 else ''}"
