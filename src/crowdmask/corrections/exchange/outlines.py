"""Outlines as masks, in each of the conventions that programs write into one and the same format.

A polygon in a file says neither whether (0, 0) is the corner or the centre of the first pixel, nor whether a ring
within a ring is a hole. So an outline has several readings; which one a program meant shows when one of them is the
mask that was handed out, pixel by pixel. Nothing is drawn before its cost is charged to a budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from pycocotools import mask as coco

from crowdmask.corrections.drawing import fill_polygons, parse_counts
from crowdmask.corrections.exchange import runs
from crowdmask.corrections.exchange.base import MAX_COORDINATE, MAX_POINTS
from crowdmask.corrections.exchange.budget import Budget
from crowdmask.masks.rle import Window

MAX_BOX = 1 << 26
"""Most pixels of an outline's box."""
MAX_RINGS = 1000
"""Most rings of one outline."""
MAX_TRACED = 1 << 20
"""Longest outline for which pycocotools' rasteriser, whose memory grows with the length, is asked, pixels."""

_CROSSING = 40
"""Work for a row that an edge crosses, or a pixel along a line (measured: 100 to 200 ns, a filled pixel 4 ns)."""
_RING = 1 << 16
"""Work for each ring beyond the fourth (measured: 150 us a ring in each convention)."""

Ring = np.ndarray
"""Corners float64 (n, 2) as (x, y), closed without repeating the first."""


def ring(values: Any) -> Ring:
    """Ring from what stands in a file: a list [x, y, x, y, ...] or [[x, y], ...].

    Raises:
        ValueError: not numbers in pairs, or against `check`.
    """
    if not isinstance(values, list | tuple):
        raise ValueError("an outline is no list of numbers")
    if len(values) > 2 * MAX_POINTS:
        raise ValueError(f"more than {MAX_POINTS} points in one outline; bring the mask as run lengths")
    flat: list[Any] = list(values)
    # Types and lengths by sets: such lists may be long, and Python's own loops are slow.
    if flat and isinstance(flat[0], list | tuple):
        if not set(map(type, flat)) <= {list, tuple} or not set(map(len, flat)) <= {2}:
            raise ValueError("an outline's points are not all pairs of numbers")
        flat = list(chain.from_iterable(flat))
    if len(flat) % 2:
        raise ValueError(f"an outline has {len(flat)} numbers: an x lacks its y")
    if not set(map(type, flat)) <= {int, float}:
        raise ValueError("an outline holds something that is no number")
    try:
        made = np.array(flat, np.float64).reshape(-1, 2)
    except OverflowError:  # a whole number of hundreds of digits
        made = np.full((1, 2), np.inf)
    if not (np.abs(made) <= MAX_COORDINATE).all():  # false for NaN, too
        raise ValueError(f"a coordinate is no number within {MAX_COORDINATE:.0f} pixels")
    return made


def check(rings: Sequence[Ring]) -> None:
    """Refuse rings that nobody should draw.

    Raises:
        ValueError: more than `MAX_RINGS` rings or `MAX_POINTS` corners in all, NaN, infinity, or a coordinate beyond
            `MAX_COORDINATE`.
    """
    if len(rings) > MAX_RINGS:
        raise ValueError(f"an outline of {len(rings)} rings, more than {MAX_RINGS}; bring the mask as run lengths")
    if sum(len(part) for part in rings) > MAX_POINTS:
        raise ValueError(f"more than {MAX_POINTS} points in one outline; bring the mask as run lengths")
    if not all((np.abs(part) <= MAX_COORDINATE).all() for part in rings):  # false for NaN, too
        raise ValueError(f"a coordinate is no number within {MAX_COORDINATE:.0f} pixels")


def readings(
    rings: Sequence[Ring | Sequence[float]], height: int, width: int, corner: bool, budget: Budget | None = None
) -> tuple[Window, ...]:
    """Every mask that rings may mean, tight, cut to the picture, none twice (our choice).

    First the format's own convention, rings united; then the other convention, united; then both with a ring inside of
    a ring as a hole (even-odd); last pycocotools' own rasterisation of the raw coordinates, united. A pixel belongs to
    a ring when its centre lies inside or on a line. A ring that runs along one line, or that holds no pixel centre,
    has the pixels through which it passes.

    Args:
        rings: Corners (x, y) of each ring; a ring may have one or two points.
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        corner: True = the tool puts (0, 0) at the corner of the first pixel, False = at its centre.
        budget: What the picture's shapes may cost; None = that of a picture of its own.

    Returns:
        At least one window; of size 0 x 0 at (0, 0) where no pixel is in the picture.

    Raises:
        ValueError: against `check`, or too costly.
    """
    budget = budget or Budget()
    parts = [np.asarray(part, np.float64).reshape(-1, 2) for part in rings]
    check(parts)
    parts = [part for part in parts if len(part)]
    if not parts:
        return (_EMPTY,)
    left, top, right, bottom = _box(parts, height, width)
    if max(right - left + 1, 0) * max(bottom - top + 1, 0) > MAX_BOX:
        raise ValueError(f"the box of an outline has more than {MAX_BOX} pixels; bring the mask as run lengths")
    budget.draw(_RING * max(len(parts) - 4, 0))
    shifts = (0.5, 0.0) if corner else (0.0, 0.5)
    united, odd = [], []
    for shift in shifts:
        moved = [part - shift for part in parts]
        drawn = [_draw(part, height, width, budget) for part in moved]
        united.append(_unite(drawn, budget))
        if len(moved) > 1:
            whole = _fill(moved, height, width, budget)
            # Thin rings have no inside: they are added, whatever the rule.
            thin = [mask for part, mask in zip(moved, drawn, strict=True) if _is_thin(part)]
            odd.append(_unite([whole, *thin], budget))
    found: list[Window] = []
    for window in (*united, *odd, as_pycocotools(parts, height, width, budget)):
        if window.mask.size and not any(_same(window, known) for known in found):
            found.append(window)
    budget.keep(sum(window.mask.size for window in found))
    # An empty reading beside others would mean only that the outline leaves the picture by that convention.
    return tuple(found) or (_EMPTY,)


_EMPTY = Window(0, 0, np.zeros((0, 0), bool))


def _tight(window: Window) -> Window:
    """On its bounding box, in memory of its own, so that a large drawing of a small mask is freed."""
    tight = window.tight()
    return Window(tight.x0, tight.y0, tight.mask.copy()) if tight.mask.size else _EMPTY


def _same(a: Window, b: Window) -> bool:
    return (a.x0, a.y0) == (b.x0, b.y0) and np.array_equal(a.mask, b.mask)


def _box(parts: Sequence[Ring], height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (the last two included) of the pixels that the rings may touch in the picture."""
    low = np.min([part.min(axis=0) for part in parts], axis=0)
    high = np.max([part.max(axis=0) for part in parts], axis=0)
    left, top = np.maximum(np.floor(low), 0).astype(int)
    right, bottom = np.minimum(np.ceil(high), (width - 1, height - 1)).astype(int)
    return int(left), int(top), int(right), int(bottom)


def _fill(parts: Sequence[Ring], height: int, width: int, budget: Budget) -> Window:
    """Pixels inside an odd number of rings or on a line, tight; charged before it is drawn."""
    left, top, right, bottom = _box(parts, height, width)
    if left > right or top > bottom:
        return _EMPTY
    rows = 0.0
    for part in parts:
        y = np.clip(part[:, 1], top - 1, bottom + 1)
        rows += float(np.abs(np.diff(y, append=y[:1])).sum())
    budget.draw((right - left + 1) * (bottom - top + 1) + _CROSSING * rows)
    return _tight(fill_polygons([part.ravel().tolist() for part in parts], height, width))


def _draw(part: Ring, height: int, width: int, budget: Budget) -> Window:
    """One ring; with the pixels along its lines where it has no inside."""
    filled = _fill([part], height, width, budget)
    if filled.mask.size and not _is_thin(part):
        return filled
    return _unite([filled, _along(part, height, width, budget)], budget)


def _is_thin(part: Ring) -> bool:
    """Whether all corners lie on one line (1e-6 pixels)."""
    away = part - part[0]
    length = np.hypot(away[:, 0], away[:, 1])
    far = int(length.argmax())
    if length[far] < 1e-6:
        return True
    cross = away[:, 0] * away[far, 1] - away[:, 1] * away[far, 0]
    return bool(np.abs(cross).max() <= 1e-6 * length[far])


def _along(part: Ring, height: int, width: int, budget: Budget) -> Window:
    """Pixels through which a ring's lines pass, one for each step along the longer axis."""
    begin, end = _clip(part, np.roll(part, -1, axis=0), height, width)
    if not len(begin):
        return _EMPTY
    steps = np.ceil(np.abs(end - begin).max(axis=1)).astype(int) + 1
    budget.draw(_CROSSING * int(steps.sum()))
    edge = np.repeat(np.arange(len(begin)), steps)
    place = np.arange(edge.size) - np.repeat(np.cumsum(steps) - steps, steps)
    share = place / np.maximum(steps - 1, 1)[edge]
    points = begin[edge] + share[:, None] * (end - begin)[edge]
    x, y = np.floor(points + 0.5).astype(int).T
    kept = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = x[kept], y[kept]
    if not x.size:
        return _EMPTY
    left, top = int(x.min()), int(y.min())
    w, h = int(x.max()) - left + 1, int(y.max()) - top + 1
    budget.draw(w * h)
    mask = np.zeros((h, w), bool)
    mask[y - top, x - left] = True
    return Window(left, top, mask)


def _clip(begin: Ring, end: Ring, height: int, width: int) -> tuple[Ring, Ring]:
    """The parts of lines that lie in the picture (Liang and Barsky 1984), those outside left out."""
    step = end - begin
    enter, leave = np.zeros(len(begin)), np.ones(len(begin))
    outside = np.zeros(len(begin), bool)
    for axis, size in ((0, width), (1, height)):
        for sign, bound in ((1, -0.5), (-1, size - 0.5)):
            slope, gap = sign * step[:, axis], sign * (bound - begin[:, axis])
            outside |= (slope == 0) & (gap > 0)
            with np.errstate(over="ignore"):  # a line all but parallel to the border meets it infinitely far away
                at = np.divide(gap, slope, out=np.zeros(len(begin)), where=slope != 0)
            enter = np.where(slope > 0, np.maximum(enter, at), enter)
            leave = np.where(slope < 0, np.minimum(leave, at), leave)
    kept = ~outside & (enter <= leave)
    begin, step, enter, leave = begin[kept], step[kept], enter[kept, None], leave[kept, None]
    return begin + enter * step, begin + leave * step


def _unite(windows: Sequence[Window], budget: Budget) -> Window:
    some = [window for window in windows if window.mask.size]
    if len(some) < 2:
        return some[0] if some else _EMPTY
    left, top = min(window.x0 for window in some), min(window.y0 for window in some)
    right = max(window.x0 + window.mask.shape[1] for window in some)
    bottom = max(window.y0 + window.mask.shape[0] for window in some)
    budget.draw((right - left) * (bottom - top))
    mask = np.zeros((bottom - top, right - left), bool)
    for window in some:
        h, w = window.mask.shape
        mask[window.y0 - top : window.y0 - top + h, window.x0 - left : window.x0 - left + w] |= window.mask
    return Window(left, top, mask)


def length(parts: Sequence[Ring]) -> float:
    """Of the rings' lines, in steps along the longer axis, pixels; of rings with an inside."""
    return sum(float(np.abs(np.roll(part, -1, axis=0) - part).max(axis=1).sum()) for part in parts if len(part) > 2)


def as_pycocotools(parts: Sequence[Ring], height: int, width: int, budget: Budget) -> Window:
    """Rings as pycocotools draws them, united; empty where it draws nothing, or too long a line (`MAX_TRACED`).

    Args:
        parts: Rings within the bounds of `check`.
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        budget: What the picture's shapes may cost.

    Raises:
        ValueError: too costly.
    """
    parts = [part for part in parts if len(part) > 2]
    if not parts or length(parts) > MAX_TRACED:
        return _EMPTY
    drawn = pycocotools_counts(parts, height, width, budget)
    if not coco.area({"size": [height, width], "counts": drawn}):
        return _EMPTY
    return runs.window(parse_counts(drawn.decode("ascii"), height, width), height, budget)


def pycocotools_counts(parts: Sequence[Ring], height: int, width: int, budget: Budget) -> bytes:
    """Compressed counts, of the whole picture, of rings as pycocotools draws them, united.

    Args:
        parts: Rings within the bounds of `check`, each of three corners or more, no longer than `MAX_TRACED` together.
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        budget: What the picture's shapes may cost.

    Raises:
        ValueError: too costly.
    """
    # On the whole picture, because its rounding depends on the distance to the corner; only run lengths are made.
    budget.draw(_CROSSING * length(parts))
    counts: bytes = coco.merge(coco.frPyObjects([part.ravel().tolist() for part in parts], height, width))["counts"]
    return counts
