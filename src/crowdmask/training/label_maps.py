"""Label maps: whose each pixel is. 0 background, i + 1 the head at place i of a list, -1 nobody of the list.

A map of another size than the image has, at each pixel, the label of the image's pixel in which its centre lies; in
whole numbers, so that no two places round differently. No head may vanish by that: see `keep_heads`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from crowdmask.geometry import circle_box, own_pixels, squared_distance


@dataclass(frozen=True)
class Area:
    """Pixels of a head in the image.

    Attributes:
        x0: Left column.
        y0: Upper row.
        w: Columns.
        h: Rows.
        mask: bool (h, w); None = all of them.
        centre_xy: The nearer centre has a pixel that several areas claim; pixels, centres of pixels at whole numbers.
    """

    x0: int
    y0: int
    w: int
    h: int
    mask: np.ndarray | None
    centre_xy: tuple[float, float]


def sources(start: int, count: int, length: int, new_length: int) -> np.ndarray:
    """For pixels of a scaled axis, the pixel of the original in which each one's centre lies: int64 (count,).

    Args:
        start: First pixel wanted, of the scaled axis.
        count: How many.
        length: Of the original axis, pixels.
        new_length: Of the scaled axis, pixels.
    """
    return (2 * np.arange(start, start + count, dtype=np.int64) + 1) * length // (2 * new_length)


def paint(areas: Iterable[Area], image_hw: tuple[int, int], size_hw: tuple[int, int]) -> np.ndarray:
    """Label map of heads: int32 (h, w), one value a head in the order given, from 1.

    Where areas overlap the nearest centre has the pixel, of equally near ones the first.

    Args:
        areas: One a head; cut to the image. Only one is held at a time.
        image_hw: Height and width of the image, in whose pixels the areas are.
        size_hw: Height and width of the map.
    """
    h, w = size_hw
    rows, columns = sources(0, h, image_hw[0], h), sources(0, w, image_hw[1], w)
    labels = np.zeros((h, w), np.int32)
    nearest = np.full((h, w), np.inf)
    for label, area in enumerate(areas, 1):
        top, bottom = np.searchsorted(rows, [area.y0, area.y0 + area.h])
        left, right = np.searchsorted(columns, [area.x0, area.x0 + area.w])
        if top == bottom or left == right:
            continue
        y, x = rows[top:bottom], columns[left:right]
        part = np.s_[top:bottom, left:right]
        distance = (y[:, None] - area.centre_xy[1]) ** 2 + (x[None, :] - area.centre_xy[0]) ** 2
        mine = distance < nearest[part]
        if area.mask is not None:
            mine &= area.mask[np.ix_(y - area.y0, x - area.x0)]
        labels[part][mine] = label
        nearest[part][mine] = distance[mine]
    return labels


def keep_heads(labels: np.ndarray, points_xy: np.ndarray, owned: np.ndarray) -> np.ndarray:
    """A label map in which no head has vanished, as far as there are pixels.

    The pixel that a point lies in gets its label where `owned` says that it had it before scaling (of several points
    in one pixel, the first). Then each head without a pixel gets the nearest one that is background, nobody's, or
    not the last one of another head (ties: upper, then left). Our choice.

    Args:
        labels: int (h, w), i + 1 for the head of point i. Not changed.
        points_xy: (m, 2), pixels of the map.
        owned: bool (m,).

    Returns:
        The map, or `labels` itself where nothing is to change.
    """
    m = len(points_xy)
    if m == 0 or labels.size == 0:
        return labels
    height, width = labels.shape
    own = own_pixels(points_xy, height, width)
    place = own[:, 1] * width + own[:, 0]
    mine = np.flatnonzero(owned)
    _, first = np.unique(place[mine], return_index=True)
    mine = mine[np.sort(first)]
    flat = labels.ravel()
    changed = mine[flat[place[mine]] != mine + 1]
    counts = np.bincount(flat[flat > 0], minlength=m + 1)[: m + 1]
    if not len(changed) and counts[1:].all():
        return labels
    out = labels.copy()
    flat = out.ravel()
    flat[place[changed]] = changed + 1
    counts = np.bincount(flat[flat > 0], minlength=m + 1)[: m + 1]
    held = np.zeros(labels.size, bool)
    held[place[mine]] = True
    for i in np.flatnonzero(counts[1:] == 0).tolist():
        found = _nearest_free(out, counts, held.reshape(out.shape), points_xy[i])
        if found is None:  # every pixel is the last one of somebody
            break
        taken = out[found]
        if taken > 0:
            counts[taken] -= 1
        out[found] = i + 1
        counts[i + 1] = 1
    return out


def _nearest_free(
    labels: np.ndarray, counts: np.ndarray, held: np.ndarray, point_xy: np.ndarray
) -> tuple[int, int] | None:
    """Row and column of the nearest pixel that a head may be given; None where there is none."""
    height, width = labels.shape
    x, y = float(point_xy[0]), float(point_xy[1])
    reach, farthest = 3.0, float(np.hypot(height, width)) + 1
    while True:
        x0, y0, w, h = circle_box(x, y, reach, height, width)
        part = np.s_[y0 : y0 + h, x0 : x0 + w]
        label = labels[part]
        free = (label <= 0) | ((counts[np.maximum(label, 0)] > 1) & ~held[part])
        distance = np.where(free, squared_distance(x, y, x0, y0, w, h), np.inf)
        row, column = divmod(int(np.argmin(distance)), w)
        if distance[row, column] <= reach**2 or (reach >= farthest and np.isfinite(distance[row, column])):
            return y0 + row, x0 + column
        if reach >= farthest:
            return None
        reach *= 2
