"""Drawings of an edit file as masks, and back: run lengths, polygons, discs.

Pixel centres lie at integer coordinates. Nothing here trusts its input: run lengths are parsed before anything is
allocated, polygons are bounded by the rows that their lines cross.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from crowdmask.geometry import circle_box, clip_points, own_pixels, squared_distance
from crowdmask.masks import runs
from crowdmask.masks.rle import Window

MAX_CROSSINGS = 4_000_000
"""Most crossings of a polygon's edges with pixel rows: bounds time and memory of drawing it."""
SNAP = 1e-6
"""A polygon coordinate this near to an integer is that integer, pixels."""
BAND = 1 << 22
"""Pixels of a polygon that are filled together."""


def parse_counts(counts: str, height: int, width: int) -> np.ndarray:
    """Run lengths of COCO compressed counts, checked so that hostile text reaches no decoder: int64 (n,).

    Args:
        counts: Text of 5-bit groups, as pycocotools writes it.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        ValueError: a foreign character, a cut-off or oversized number, a negative run, a sum other than height x width,
            or no mask pixel.
    """
    try:
        codes = np.frombuffer(counts.encode("ascii"), np.uint8)
    except UnicodeEncodeError:
        raise ValueError("counts are not COCO run lengths: foreign character") from None
    if not codes.size:
        raise ValueError("counts are not COCO run lengths: empty")
    found, _ = runs.parse(codes, np.array([0, codes.size]), np.array([height * width]))
    if not found[1::2].any():
        raise ValueError("the mask has no pixel")
    return found


def from_runs(lengths: np.ndarray, height: int, allow: Callable[[int], None] | None = None) -> Window:
    """Tight window of checked run lengths, background first, column by column; only its box is allocated.

    Args:
        lengths: int64 (n,).
        height: Of the columns, pixels.
        allow: Is given the number of pixels of the box before it is made, and raises where they are too many.

    Returns:
        The mask; of size 0 x 0 where it is empty.
    """
    return runs.windows(runs.intervals(lengths, np.array([0, lengths.size])), height, allow)[0]


def paint(begin: np.ndarray, end: np.ndarray, height: int, allow: Callable[[int], None] | None = None) -> Window:
    """Tight window of runs of pixels, column by column; see `from_runs`.

    Args:
        begin: int64 (n,), ascending: first pixels of runs.
        end: int64 (n,): one past their last pixels, above `begin`, at most the next begin.
        height: Of the columns, pixels.
        allow: As in `from_runs`.
    """
    return runs.windows(runs.joined(begin, end, np.zeros(begin.size, np.int64), 1), height, allow)[0]


def fill_polygons(rings: Sequence[Sequence[float]], height: int, width: int) -> Window:
    """Pixels whose centres lie inside an odd number of rings, or on a line of one (even-odd rule; our choice).

    So a ring within a ring is a hole, whose line belongs to the mask, and two rings that overlap leave out what they
    share. The square (0, 0), (2, 0), (2, 2), (0, 2) has 9 pixels. Tools that put the corner of the first pixel at
    (0, 0) need 0.5 taken off their coordinates.

    Args:
        rings: Each (x, y, x, y, ...), finite, at least 3 points; closed without repeating the first.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        ValueError: the lines cross more than `MAX_CROSSINGS` rows altogether.
    """
    parts = [np.asarray(ring, float).reshape(-1, 2) for ring in rings]
    start = np.concatenate(parts)
    start = np.where(np.abs(start - np.rint(start)) <= SNAP, np.rint(start), start)
    offsets = np.cumsum([0] + [len(part) for part in parts])
    stop = np.concatenate([np.roll(start[a:b], -1, axis=0) for a, b in itertools.pairwise(offsets)])
    low, high = np.ceil(start.min(axis=0)).astype(int), np.floor(start.max(axis=0)).astype(int)
    x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
    x1, y1 = min(int(high[0]), width - 1), min(int(high[1]), height - 1)
    if x0 > x1 or y0 > y1:
        return Window(0, 0, np.zeros((0, 0), bool))
    # Crossings with pixel rows; half-open in y, so that each row meets every ring an even number of times.
    swap = start[:, 1] > stop[:, 1]
    upper, lower = np.where(swap[:, None], stop, start), np.where(swap[:, None], start, stop)
    first = np.maximum(np.ceil(upper[:, 1]), y0).astype(int)
    count = np.maximum(np.minimum(np.ceil(lower[:, 1]), y1 + 1).astype(int) - first, 0)
    if count.sum() > MAX_CROSSINGS:
        raise ValueError(f"the polygon's lines cross more than {MAX_CROSSINGS} rows; give it as `mask` (run lengths)")
    edge = np.repeat(np.arange(len(start)), count)
    rows = np.arange(edge.size) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (rows - upper[edge, 1]) / (lower[edge, 1] - upper[edge, 1])
    cross = upper[edge, 0] + slope * (lower[edge, 0] - upper[edge, 0])
    order = np.lexsort((cross, rows))
    rows, cross = rows[order], cross[order]
    # Lines along a row, and corners on a pixel, which the half-open rule leaves out.
    flat = (start[:, 1] == stop[:, 1]) & (start[:, 1] == np.rint(start[:, 1]))
    corner = (start == np.rint(start)).all(axis=1)
    span_rows = np.concatenate([rows[0::2], start[flat, 1], start[corner, 1]]).astype(int)
    left = np.concatenate([cross[0::2], np.minimum(start[flat, 0], stop[flat, 0]), start[corner, 0]])
    right = np.concatenate([cross[1::2], np.maximum(start[flat, 0], stop[flat, 0]), start[corner, 0]])
    left, right = np.maximum(np.ceil(left - SNAP), x0).astype(int), np.minimum(np.floor(right + SNAP), x1).astype(int)
    kept = (left <= right) & (span_rows >= y0) & (span_rows <= y1)
    span_rows, left, right = span_rows[kept] - y0, left[kept] - x0, right[kept] - x0
    order = np.argsort(span_rows, kind="stable")
    span_rows, left, right = span_rows[order], left[order], right[order]
    mask = np.empty((y1 - y0 + 1, x1 - x0 + 1), bool)
    band = max(1, BAND // mask.shape[1])
    for top in range(0, mask.shape[0], band):
        part = slice(*np.searchsorted(span_rows, [top, top + band]))
        steps = np.zeros((min(band, mask.shape[0] - top), mask.shape[1] + 1), np.int32)
        np.add.at(steps, (span_rows[part] - top, left[part]), 1)
        np.add.at(steps, (span_rows[part] - top, right[part] + 1), -1)
        mask[top : top + band] = np.cumsum(steps[:, :-1], axis=1, dtype=np.int32) > 0
    return Window(x0, y0, mask)


def disc(x: float, y: float, radius: float, height: int, width: int) -> Window:
    """Pixels whose centres are at most `radius` from the point (clipped to the image), and the point's own pixel.

    The same circle as in `crowdmask.masks.exclusion`, without what other instances take from it.

    Args:
        x: Of the point, pixels.
        y: Of the point, pixels.
        radius: Pixels.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    cx, cy = clip_points(np.array([[x, y]]), height, width)[0]
    px, py = (int(v) for v in own_pixels(np.array([[x, y]]), height, width)[0])
    box = circle_box(cx, cy, radius, height, width)
    mask = squared_distance(cx, cy, *box) <= radius * radius
    if not mask.any():
        return Window(px, py, np.ones((1, 1), bool))
    # The own pixel may lie just outside of a circle smaller than half a pixel's diagonal.
    left, top = min(box[0], px), min(box[1], py)
    grown = Window(box[0], box[1], mask).cut(
        left, top, max(box[0] + box[2] - 1, px) - left + 1, max(box[1] + box[3] - 1, py) - top + 1
    )
    grown[py - top, px - left] = True
    return Window(left, top, grown).tight()


def trace(window: Window) -> tuple[tuple[float, ...], ...] | None:
    """Rings that `fill_polygons` turns into exactly this mask, holes and fragments included.

    Args:
        window: Mask with at least one pixel.

    Returns:
        Rings (x, y, x, y, ...) through pixel centres; None where the outlines do not give the mask back.
    """
    found, _ = cv2.findContours(window.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = []
    for contour in found:
        points = contour.reshape(-1, 2).astype(float) + np.array([window.x0, window.y0])
        while len(points) < 3:
            points = np.concatenate([points, points[-1:]])
        rings.append(tuple(points.ravel().tolist()))
    again = fill_polygons(rings, window.y0 + window.mask.shape[0], window.x0 + window.mask.shape[1])
    h, w = window.mask.shape
    return tuple(rings) if np.array_equal(again.cut(window.x0, window.y0, w, h), window.mask) else None
