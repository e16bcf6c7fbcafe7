"""Crops of a photo with one mask outlined on each, all of the same place, to lie side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor

import cv2
import numpy as np

from crowdmask.export.overlay import outline
from crowdmask.masks.rle import Window

SIDE = 200
"""Of a crop as shown, pixels."""
MARGIN, SMALLEST = 0.3, 24
"""Surroundings on each side, as a share of what is shown; and fewest pixels of the photo a side (our choice)."""
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 78, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
"""How crops are packed: colours at full size, for outlines are two pixels wide."""

ORANGE, GREEN, BLUE, PINK = (230, 159, 0), (0, 158, 115), (86, 180, 233), (255, 130, 200)
"""RGB: before, after, truth, drawing."""

Panel = tuple[str, Window | None, tuple[int, int, int]]
"""Caption, mask to outline (None = none), and its colour."""


def place(
    masks: Iterable[Window | None], point_xy: tuple[float, float] | None, height: int, width: int
) -> tuple[int, int, int, int]:
    """The square around all masks and the point, moved and cut to lie in the image: (x0, y0, w, h), pixels.

    Args:
        masks: Masks; empty and missing ones count for nothing.
        point_xy: Head point, pixels, anywhere; None = not known.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    boxes = [
        (tight.x0, tight.y0, tight.x0 + tight.mask.shape[1], tight.y0 + tight.mask.shape[0])
        for tight in (mask.tight() for mask in masks if mask is not None)
        if tight.mask.size
    ]
    if point_xy is not None:
        x, y = floor(min(max(point_xy[0], 0), width - 1)), floor(min(max(point_xy[1], 0), height - 1))
        boxes.append((x, y, x + 1, y + 1))
    if not boxes:
        boxes = [(0, 0, width, height)]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    side = max(ceil(max(right - left, bottom - top) * (1 + 2 * MARGIN)), SMALLEST)
    w, h = min(side, width), min(side, height)
    x0 = min(max((left + right - w) // 2, 0), width - w)
    y0 = min(max((top + bottom - h) // 2, 0), height - h)
    return x0, y0, w, h


def panels(
    photo: np.ndarray, shown: Sequence[Panel], point_xy: tuple[float, float] | None = None
) -> list[tuple[str, bytes]]:
    """Crops of one place of a photo, one for each mask.

    Args:
        photo: uint8 (H, W, 3) RGB.
        shown: What to outline on each crop.
        point_xy: Head point, pixels; a white dot where it lies within the crop.

    Returns:
        Caption and JPEG file content of each.
    """
    height, width = photo.shape[:2]
    x0, y0, w, h = place((mask for _, mask, _ in shown), point_xy, height, width)
    scale = SIDE / max(w, h)
    size = max(1, round(w * scale)), max(1, round(h * scale))
    crop = photo[y0 : y0 + h, x0 : x0 + w]
    canvas = cv2.resize(crop, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return [(caption, _drawn(canvas, mask, colour, (x0, y0, w, h), point_xy)) for caption, mask, colour in shown]


def _drawn(
    canvas: np.ndarray,
    mask: Window | None,
    colour: tuple[int, int, int],
    box: tuple[int, int, int, int],
    point_xy: tuple[float, float] | None,
) -> bytes:
    x0, y0, w, h = box
    size = canvas.shape[1], canvas.shape[0]
    panel = canvas.copy()
    if mask is not None:
        large = cv2.resize(mask.cut(x0, y0, w, h).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        rim = cv2.dilate(large.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~large
        panel[rim] = (20, 20, 20)
        panel[outline(large, 2)] = colour
    if point_xy is not None:
        # The centre of a pixel lies in the middle of the square that it becomes.
        x, y = (
            (value - start + 0.5) * s / n for value, start, s, n in zip(point_xy, (x0, y0), size, (w, h), strict=True)
        )
        if 0 <= x < size[0] and 0 <= y < size[1]:
            cv2.circle(panel, (floor(x), floor(y)), 3, (20, 20, 20), -1)
            cv2.circle(panel, (floor(x), floor(y)), 2, (255, 255, 255), -1)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(panel, cv2.COLOR_RGB2BGR), JPEG)
    if not done:
        raise ValueError("the crop could not be encoded")
    return data.tobytes()
