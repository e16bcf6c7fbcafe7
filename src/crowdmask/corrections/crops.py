"""How an image with too many heads for a tool's page is cut into crops.

The image is tiled by rectangles, the cores, each with the points of at most so many heads. A head belongs to the one
core that holds its point. The crop that people see is the core and the masks of its heads with a margin around; what
lies outside of the core is darkened, because that is the work of another crop. All of it is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crowdmask.geometry import own_pixels

DIM = 0.5
"""Brightness outside of the core."""


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels.

    Attributes:
        x0: Left column.
        y0: Top row.
        w: Columns, at least 1.
        h: Rows, at least 1.
    """

    x0: int
    y0: int
    w: int
    h: int

    @property
    def x1(self) -> int:
        """First column right of it."""
        return self.x0 + self.w

    @property
    def y1(self) -> int:
        """First row below it."""
        return self.y0 + self.h


@dataclass(frozen=True)
class Crop:
    """A part of an image, with the heads whose masks are corrected there.

    Attributes:
        core: Where people work; the points of all its heads lie in it.
        box: What they see: holds the core, and the masks of its heads wholly.
        heads: Places of its heads in the lists that were given, ascending.
    """

    core: Box
    box: Box
    heads: tuple[int, ...]


def cut(
    height: int,
    width: int,
    points_xy: np.ndarray,
    boxes_xywh: np.ndarray,
    limit: int,
    margin: int,
) -> list[Crop]:
    """Crops of an image, each with at most `limit` heads; one crop, the whole image, where it has no more.

    A core with more heads is halved by the median of their pixels along its longer side (along its width where it is
    square), along the other side where they all lie in one line. More than `limit` heads in one single pixel are
    divided in their order into crops with the same core; but for that the cores tile the image.

    Args:
        height: Of the image, pixels.
        width: Of the image, pixels.
        points_xy: float (N, 2) head points; outside of the image the nearest pixel counts.
        boxes_xywh: int (N, 4) rectangles (x0, y0, w, h) of their masks, inside of the image.
        limit: Most heads of a crop, at least 1.
        margin: Pixels around core and masks, cut at the image's border.

    Returns:
        Crops by halves: the left before the right, the upper before the lower.
    """
    points = own_pixels(points_xy, height, width)
    boxes = np.asarray(boxes_xywh, np.int64).reshape(-1, 4)
    image = Box(0, 0, width, height)
    if len(points) <= limit:
        return [Crop(image, image, tuple(range(len(points))))]
    made = []
    waiting = [(image, np.arange(len(points)))]
    while waiting:
        core, heads = waiting.pop()
        if len(heads) > limit:
            waiting += reversed(_halves(core, heads, points))
            continue
        made.append(Crop(core, _grown(core, boxes[heads], margin, image), tuple(heads.tolist())))
    return made


def _halves(core: Box, heads: np.ndarray, points: np.ndarray) -> list[tuple[Box, np.ndarray]]:
    """A core and its heads as two of each."""
    for axis in (0, 1) if core.w >= core.h else (1, 0):
        place = points[heads, axis]
        # Numbers of heads to the left of each value that is there, the smallest left out: the possible halves.
        values, before = np.unique(np.sort(place), return_index=True)
        if len(values) == 1:
            continue
        best = 1 + int(np.argmin(np.abs(2 * before[1:] - len(heads))))
        border = int(values[best - 1] + values[best] + 1) // 2
        left = place < border
        if axis == 0:
            first = Box(core.x0, core.y0, border - core.x0, core.h)
            second = Box(border, core.y0, core.x1 - border, core.h)
        else:
            first = Box(core.x0, core.y0, core.w, border - core.y0)
            second = Box(core.x0, border, core.w, core.y1 - border)
        return [(first, heads[left]), (second, heads[~left])]
    half = len(heads) // 2
    return [(core, heads[:half]), (core, heads[half:])]


def _grown(core: Box, boxes: np.ndarray, margin: int, image: Box) -> Box:
    """The core and the boxes with a margin around."""
    x0 = min([core.x0, *boxes[:, 0].tolist()])
    y0 = min([core.y0, *boxes[:, 1].tolist()])
    x1 = max([core.x1, *(boxes[:, 0] + boxes[:, 2]).tolist()])
    y1 = max([core.y1, *(boxes[:, 1] + boxes[:, 3]).tolist()])
    x0, y0, x1, y1 = max(x0 - margin, 0), max(y0 - margin, 0), min(x1 + margin, image.w), min(y1 + margin, image.h)
    return Box(x0, y0, x1 - x0, y1 - y0)


def picture(pixels: np.ndarray, crop: Crop) -> np.ndarray:
    """The pixels of a crop, darkened outside of its core.

    Args:
        pixels: uint8 (H, W, 3) of the whole image; not changed.
        crop: As `cut` gives it.

    Returns:
        uint8 (h, w, 3) of `crop.box`; a copy.
    """
    box, core = crop.box, crop.core
    seen = pixels[box.y0 : box.y1, box.x0 : box.x1]
    made = np.floor(np.arange(256) * DIM).astype(np.uint8)[seen]
    inner = slice(core.y0 - box.y0, core.y1 - box.y0), slice(core.x0 - box.x0, core.x1 - box.x0)
    made[inner] = seen[inner]
    return made
