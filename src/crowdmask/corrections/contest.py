"""Who gets a contested pixel once people have drawn: manual masks first, and nobody vanishes.

Only masks whose bounding boxes touch a manual one are decoded. All rules are our choice:

1. A pixel that manual masks cover belongs to the one of the latest edit; every other mask loses it.
2. A mask that has lost all its pixels (a starved one) gets its own pixel, that of its point: whoever has it gives it,
   a drawing too. Where the own pixel is the only one of another mask, it gets the nearest pixel that is not the only
   one of its mask; of equally near ones the upper, then the left one. First all own pixels are given, in the order of
   the masks, then the others.

So the masks stay disjoint, none is empty, and a drawing gives at most one pixel for each mask that it buries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crowdmask.geometry import own_pixels
from crowdmask.masks.rle import Window


class NoPixelLeft(ValueError):
    """More masks than pixels."""


@dataclass(frozen=True)
class Cut:
    """Pixels that one mask lost to another.

    Attributes:
        loser: Index of the mask.
        taker: Index of the mask that has them now.
        edit: Row of the edit that caused it.
        pixels: How many.
    """

    loser: int
    taker: int
    edit: int
    pixels: int


@dataclass
class Result:
    """Outcome of a contest.

    Attributes:
        masks: New masks by index; masks that are not here keep every pixel.
        rescued: Indices of starved masks, each with the row of the edit that buried it.
        cuts: By edit, then loser, then taker.
    """

    masks: dict[int, Window] = field(default_factory=dict)
    rescued: dict[int, int] = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)


def contest(rows: list[dict[str, Any]], manual: Mapping[int, tuple[Window, int]], height: int, width: int) -> Result:
    """Give every contested pixel to one mask.

    Args:
        rows: Rows of `tables.MASKS`; those that are not manual are disjoint. Not changed.
        manual: Drawn mask and row of its edit, by index into `rows`.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        NoPixelLeft: there are more masks than pixels.
    """
    result = Result()
    if not manual:
        return result
    boxes = np.array([_row_box(row) for row in rows], np.int64).reshape(-1, 4)
    for i, (window, _) in manual.items():
        boxes[i] = _box(window)
    drawn = {i: window for i, (window, _) in manual.items()}
    left = _subtract(rows, manual, boxes, drawn)
    starved = [i for i in sorted(left) if not left[i].mask.any()]
    for i in starved:
        shares = {m: _common(drawn[i], left[m]) for m in _touching(boxes, boxes[i], manual)}
        result.rescued[i] = min((-pixels, manual[m][1]) for m, pixels in shares.items() if m != i)[1]
    if starved:
        _rescue(starved, rows, drawn, left, boxes, height, width)
    takers = np.array(sorted({*manual, *starved}))
    taker_boxes = np.array([_box(left[t]) for t in takers.tolist()])
    for i in sorted(left):
        if left[i].area == drawn[i].area and i not in result.rescued:
            if i not in manual:
                continue
        else:
            for t in takers[_overlap(taker_boxes, _box(drawn[i]))].tolist():
                pixels = _common(drawn[i], left[t]) if t != i else 0
                if pixels:
                    edit = result.rescued[t] if t in result.rescued else manual[t][1]
                    result.cuts.append(Cut(i, t, edit, pixels))
        result.masks[i] = left[i]
    result.cuts.sort(key=lambda cut: (cut.edit, cut.loser, cut.taker))
    return result


def _subtract(
    rows: list[dict[str, Any]],
    manual: Mapping[int, tuple[Window, int]],
    boxes: np.ndarray,
    drawn: dict[int, Window],
) -> dict[int, Window]:
    """Rule 1: what is left of manual masks and of those that lose pixels; `drawn` receives the latter as they were."""
    left: dict[int, Window] = {}
    latest_first = sorted(manual, key=lambda i: -manual[i][1])
    later = np.array(latest_first)
    for rank, i in enumerate(latest_first):
        mask = drawn[i].mask.copy()
        for h in later[:rank][_overlap(boxes[later[:rank]], boxes[i])].tolist():
            mask &= ~_on(drawn[h], drawn[i])
        left[i] = Window(drawn[i].x0, drawn[i].y0, mask)
    automatic = np.ones(len(rows), bool)
    automatic[latest_first] = False
    for m in latest_first:
        for i in np.flatnonzero(_overlap(boxes, boxes[m]) & automatic).tolist():
            before = drawn[i] if i in drawn else Window.from_columns(rows[i])
            taken = _on(drawn[m], before) & before.mask
            if not taken.any():
                continue
            drawn[i] = before
            rest = left[i].mask if i in left else before.mask
            left[i] = Window(before.x0, before.y0, rest & ~taken)
    return left


def _rescue(
    starved: list[int],
    rows: list[dict[str, Any]],
    drawn: dict[int, Window],
    left: dict[int, Window],
    boxes: np.ndarray,
    height: int,
    width: int,
) -> None:
    """Rule 2: give each starved mask one pixel; changes `left`, and `drawn` where a new mask is touched."""
    area = np.array([row["area"] for row in rows], np.int64)
    for i, window in left.items():
        area[i] = window.area
    own = own_pixels(np.array([[rows[i]["x"], rows[i]["y"]] for i in starved]), height, width)
    pad = 32
    while True:
        x0, y0 = np.maximum(own.min(axis=0) - pad, 0).tolist()
        x1, y1 = np.minimum(own.max(axis=0) + pad + 1, [width, height]).tolist()
        owner = np.full((y1 - y0, x1 - x0), -1, np.int32)
        for i in np.flatnonzero(_overlap(boxes, (x0, y0, x1, y1))).tolist():
            window = left[i] if i in left else Window.from_columns(rows[i])
            owner[window.cut(x0, y0, x1 - x0, y1 - y0)] = i
        given = _share(starved, own - [x0, y0], owner, area.copy(), _reach(own, x0, y0, x1, y1, height, width))
        if given is not None:
            break
        if (x1 - x0, y1 - y0) == (width, height):
            raise NoPixelLeft(f"{len(rows)} heads do not fit into the {height * width} pixels of the image")
        pad *= 8
    for x, y in given.values():
        g = int(owner[y, x])
        if g >= 0:
            if g not in left:
                drawn[g] = Window.from_columns(rows[g])
                left[g] = Window(drawn[g].x0, drawn[g].y0, drawn[g].mask.copy())
            left[g].mask[y + y0 - left[g].y0, x + x0 - left[g].x0] = False
    for i, (x, y) in given.items():
        left[i] = Window(x + x0, y + y0, np.ones((1, 1), bool))


def _reach(own: np.ndarray, x0: int, y0: int, x1: int, y1: int, height: int, width: int) -> np.ndarray:
    """Distance in which a region holds every pixel of the image around each point; infinite for the whole image."""
    sides = np.stack([own[:, 0] - x0, own[:, 1] - y0, x1 - 1 - own[:, 0], y1 - 1 - own[:, 1]]).astype(float)
    sides[np.array([x0 == 0, y0 == 0, x1 == width, y1 == height])] = np.inf
    return sides.min(axis=0)


def _share(
    starved: list[int], own: np.ndarray, owner: np.ndarray, area: np.ndarray, reach: np.ndarray
) -> dict[int, tuple[int, int]] | None:
    """Pixel (x, y) of the region for each starved mask; None where the region is too small to tell.

    Args:
        starved: Indices of the masks.
        own: int64 (S, 2), own pixels (x, y) in the region.
        owner: int32 (h, w), index of the mask that has each pixel, -1 = none.
        area: int64 (N,), pixels of each mask; changed.
        reach: float64 (S,), distance in which the region is complete.
    """
    only = np.append(area <= 1, False)[owner]  # the last entry serves -1
    given: dict[int, tuple[int, int]] = {}

    def give(i: int, x: int, y: int) -> None:
        given[i] = x, y
        only[y, x] = True
        giver = int(owner[y, x])
        if giver >= 0:
            area[giver] -= 1
            if area[giver] == 1:
                only[owner == giver] = True

    for i, (x, y) in zip(starved, own.tolist(), strict=True):
        if not only[y, x]:
            give(i, x, y)
    for i, (x, y), far in zip(starved, own.tolist(), reach.tolist(), strict=True):
        if i in given:
            continue
        found = free_pixel(only, x, y)
        if found is None or (found[0] - x) ** 2 + (found[1] - y) ** 2 > far**2:
            return None
        give(i, *found)
    return given


def free_pixel(taken: np.ndarray, x: int, y: int) -> tuple[int, int] | None:
    """The pixel (x, y) nearest to a given one that is not taken; of equally near ones the upper, then the left one.

    Args:
        taken: bool (h, w).
        x: Column, pixels.
        y: Row, pixels.

    Returns:
        None where all are taken.
    """
    radius = 4
    while True:
        top, left = max(y - radius, 0), max(x - radius, 0)
        rows, cols = np.nonzero(~taken[top : y + radius + 1, left : x + radius + 1])
        distance = (rows + top - y) ** 2 + (cols + left - x) ** 2
        whole = radius >= max(taken.shape)
        if distance.size and (whole or distance.min() <= radius**2):
            best = int(np.argmin(distance))  # the first: np.nonzero goes row by row
            return int(cols[best]) + left, int(rows[best]) + top
        if whole:
            return None
        radius *= 2


def _row_box(row: dict[str, Any]) -> tuple[int, int, int, int]:
    return row["x0"], row["y0"], row["x0"] + row["w"], row["y0"] + row["h"]


def _box(window: Window) -> tuple[int, int, int, int]:
    h, w = window.mask.shape
    return window.x0, window.y0, window.x0 + w, window.y0 + h


def _overlap(boxes: np.ndarray, box: Any) -> np.ndarray:
    """bool (N,): which boxes (x0, y0, x1, y1; ends exclusive) share a pixel with one box."""
    x0, y0, x1, y1 = (int(v) for v in box)
    return (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)


def _touching(boxes: np.ndarray, box: np.ndarray, manual: Mapping[int, Any]) -> list[int]:
    indices = np.array(sorted(manual))
    return indices[_overlap(boxes[indices], box)].tolist()


def _on(window: Window, other: Window) -> np.ndarray:
    """A mask on the rectangle of another."""
    h, w = other.mask.shape
    return window.cut(other.x0, other.y0, w, h)


def _common(first: Window, second: Window) -> int:
    return int(np.count_nonzero(first.mask & _on(second, first)))
