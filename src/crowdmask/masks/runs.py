"""Run lengths of many masks at once: from windows to whole images by arithmetic on the runs, without a pixel.

Compressed counts are those of COCO (pycocotools, `maskApi.c`): the run lengths of a mask column by column, background
first; from the fourth on each number is the difference to the one two before; 5 bits a character, lowest first, bit 5 =
more follow, the last one's bit 4 is the sign. Here the counts of many masks lie one after the other, with the places
where each begins, as Arrow keeps a binary column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crowdmask.masks.rle import Window

LONGEST = 7
"""Most characters of one number: 34 bits, more than any image needs."""


class RunsError(ValueError):
    """Run lengths that are none.

    Args:
        index: Of the mask.
        problem: What is wrong with it.
    """

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(problem)
        self.index = index


@dataclass(frozen=True)
class Intervals:
    """Mask pixels as half-open intervals of places, counted column by column; by mask, then by place; none touch.

    Attributes:
        begin: int64 (K,) first place of each.
        end: int64 (K,) place after the last.
        starts: int64 (N + 1,) where each mask begins in them.
    """

    begin: np.ndarray
    end: np.ndarray
    starts: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """int64 (K,): index of each one's mask."""
        return np.repeat(np.arange(self.starts.size - 1), np.diff(self.starts))

    @property
    def areas(self) -> np.ndarray:
        """int64 (N,): pixels of each mask."""
        return sums(self.end - self.begin, self.starts)


def sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sum of each stretch of int64 values, 0 where it is empty: int64 (N,)."""
    total = np.concatenate([[0], np.cumsum(values)])
    return total[starts[1:]] - total[starts[:-1]]


def parse(codes: np.ndarray, starts: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths of compressed counts, checked, so that hostile text reaches no decoder.

    Args:
        codes: uint8 (C,), the counts of all masks one after the other, first character at `starts[0]`.
        starts: int (N + 1,), where each mask begins.
        pixels: int64 (N,), what its runs must add up to; a mask of 0 pixels has no counts.

    Returns:
        Run lengths int64 (R,) and where each mask begins in them, int64 (N + 1,).

    Raises:
        RunsError: a foreign character, a cut-off or oversized number, a negative run, or another sum; of the first
            such mask by the first of these.
    """
    starts = np.asarray(starts, np.int64)
    codes = codes[starts[0] : starts[-1]] - np.uint8(48)
    starts = starts - starts[0]
    _refuse(sums(codes > 63, starts) > 0, "counts are not COCO run lengths: foreign character")
    _refuse((np.diff(starts) == 0) & (pixels > 0), "counts are not COCO run lengths: empty")
    last = (codes & 32) == 0
    full = np.flatnonzero(np.diff(starts) > 0)
    cut = np.zeros(starts.size - 1, bool)
    cut[full] = ~last[starts[full + 1] - 1]
    _refuse(cut, "counts are cut off in the middle of a number")
    ends = np.flatnonzero(last)
    begins = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    lengths = ends - begins + 1
    first = np.searchsorted(ends, starts)  # of each mask's numbers
    if lengths.size and lengths.max() > LONGEST:
        _refuse(sums(lengths > LONGEST, first) > 0, "counts hold a number that fits no image")
    runs = (codes[begins] & 31).astype(np.int64)
    for place in range(1, int(lengths.max(initial=1))):
        at = np.flatnonzero(lengths > place)
        runs[at] |= (codes[begins[at] + place] & 31).astype(np.int64) << (5 * place)
    negative = np.flatnonzero(codes[ends] & 16)
    runs[negative] -= np.int64(1) << (5 * lengths[negative])
    _undo_differences(runs, first)
    _refuse(sums(runs < 0, first) > 0, "counts hold a negative run")
    wrong = sums(runs, first) != pixels
    if wrong.any():
        index = int(np.flatnonzero(wrong)[0])
        raise RunsError(index, f"counts do not add up to the {pixels[index]} pixels of the image")
    return runs, first


def _refuse(wrong: np.ndarray, problem: str) -> None:
    if wrong.any():
        raise RunsError(int(np.flatnonzero(wrong)[0]), problem)


def _undo_differences(runs: np.ndarray, first: np.ndarray) -> None:
    """Sum up every second number of each mask, in place: from its second on, and from its third on."""
    place = np.arange(runs.size) - np.repeat(first[:-1], np.diff(first))
    for chosen in (np.flatnonzero(place & 1), np.flatnonzero((place & 1 == 0) & (place > 0))):
        bounds = np.searchsorted(chosen, first)
        total = np.cumsum(runs[chosen])
        before = np.concatenate([[0], total])[bounds[:-1]]
        runs[chosen] = total - np.repeat(before, np.diff(bounds))


def intervals(runs: np.ndarray, starts: np.ndarray) -> Intervals:
    """Mask pixels of run lengths, background first; runs of 0 may stand anywhere.

    Args:
        runs: int64 (R,), not negative.
        starts: int64 (N + 1,), where each mask begins.
    """
    count = np.diff(starts)
    place = np.arange(runs.size) - np.repeat(starts[:-1], count)
    stops = np.cumsum(runs)
    before = np.concatenate([[0], stops])[starts[:-1]]
    chosen = np.flatnonzero((place & 1) & (runs > 0))
    owner = np.repeat(np.arange(count.size), count)[chosen]
    end = stops[chosen] - before[owner]
    return joined(end - runs[chosen], end, owner, count.size)


def joined(begin: np.ndarray, end: np.ndarray, owner: np.ndarray, masks: int) -> Intervals:
    """Intervals of masks, those that touch made one.

    Args:
        begin: int64 (K,) first places, by mask, then ascending.
        end: int64 (K,) places after the last, at most the next begin of the same mask.
        owner: int64 (K,) index of each one's mask.
        masks: How many masks.
    """
    if begin.size:
        new = np.concatenate([[True], (begin[1:] != end[:-1]) | (owner[1:] != owner[:-1])])
        if not new.all():
            begin, owner = begin[new], owner[new]
            end = end[np.concatenate([new[1:], [True]])]
    return Intervals(begin, end, np.searchsorted(owner, np.arange(masks + 1)))


@dataclass(frozen=True)
class _Pieces:
    """Intervals cut at the ends of the columns: rows [top, bottom) of a column of a mask, all int64 (P,)."""

    owner: np.ndarray
    column: np.ndarray
    top: np.ndarray
    bottom: np.ndarray


def _pieces(part: Intervals, height: np.ndarray) -> _Pieces:
    """Args: intervals of N masks; int64 (N,) height of their columns, at least 1."""
    owner = part.owner
    first, last = part.begin // height[owner], (part.end - 1) // height[owner]
    count = last - first + 1
    source = np.repeat(np.arange(owner.size), count)
    column = np.arange(source.size) - np.repeat(np.cumsum(count) - count, count) + first[source]
    owner = owner[source]
    high = height[owner]
    low = column * high
    top = np.maximum(part.begin[source], low) - low
    return _Pieces(owner, column, top, np.minimum(part.end[source], low + high) - low)


def _boxes(pieces: _Pieces, masks: int) -> np.ndarray:
    """int64 (masks, 4): x, y, w, h of each mask; 0, 0, 0, 0 where it is empty."""
    boxes = np.zeros((masks, 4), np.int64)
    starts = np.searchsorted(pieces.owner, np.arange(masks + 1))
    some = np.flatnonzero(np.diff(starts))
    if some.size:
        at = starts[some]  # what lies between two of these is of one mask: empty ones have nothing there
        left, right = pieces.column[at], pieces.column[starts[some + 1] - 1]
        upper, lower = np.minimum.reduceat(pieces.top, at), np.maximum.reduceat(pieces.bottom, at)
        boxes[some] = np.stack([left, upper, right - left + 1, lower - upper], axis=1)
    return boxes


def framed(part: Intervals, windows_xywh: np.ndarray, height: np.ndarray) -> tuple[Intervals, np.ndarray]:
    """Intervals of windows as intervals of the whole images.

    Args:
        part: Of N windows.
        windows_xywh: int64 (N, 4): left column, top row, width and height of each, inside of its image.
        height: int64 (N,): of the images, pixels.

    Returns:
        Places in the whole images; and int64 (N, 4): x, y, w, h of the masks' own boxes, 0, 0, 0, 0 of empty ones.
    """
    count = part.starts.size - 1
    x0, y0, _, h = windows_xywh.T
    # A run that goes on in the next column of the window is one run per column in the image.
    found = _pieces(part, np.maximum(h, 1))
    owner = found.owner
    moved = _Pieces(owner, found.column + x0[owner], found.top + y0[owner], found.bottom + y0[owner])
    base = moved.column * height[owner]
    return joined(base + moved.top, base + moved.bottom, owner, count), _boxes(moved, count)


def windows(whole: Intervals, height: int, allow: Callable[[int], None] | None = None) -> list[Window]:
    """Tight windows of masks of one image; nothing but their own boxes is allocated.

    Args:
        whole: Places of N masks in the image.
        height: Of the image, pixels.
        allow: Is given the pixels of all boxes together before they are made, and raises where they are too many.

    Returns:
        One for each mask, of size 0 x 0 at (0, 0) where it is empty.
    """
    count = whole.starts.size - 1
    found = _pieces(whole, np.full(count, height))
    boxes = _boxes(found, count)
    x, y, w, h = boxes.T
    if allow is not None:
        allow(int((w * h).sum()))
    # One cell more in each column, where the steps down of its last row go.
    size = w * (h + 1)
    offset = np.concatenate([[0], np.cumsum(size)])
    steps = np.zeros(offset[-1], np.int8)
    owner = found.owner
    place = offset[owner] + (found.column - x[owner]) * (h[owner] + 1) - y[owner]
    steps[place + found.top] += 1  # no two intervals of a mask begin, or end, at one pixel
    steps[place + found.bottom] -= 1
    np.cumsum(steps, dtype=np.int8, out=steps)
    made = []
    for k, (left, top, wide, high) in enumerate(boxes.tolist()):
        cells = steps[offset[k] : offset[k + 1]].reshape(wide, high + 1)[:, :high]
        made.append(Window(left, top, np.ascontiguousarray(cells.T).view(bool)))
    return made


def compress(whole: Intervals, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compressed counts of masks, byte for byte those that pycocotools makes of their pixels.

    Args:
        whole: Places of N masks.
        pixels: int64 (N,): of their images.

    Returns:
        Characters uint8 (C,), those of all masks one after the other, and where each begins, int64 (N + 1,).
    """
    count = np.diff(whole.starts)
    owner = np.repeat(np.arange(count.size), count)
    # The end of the image bounds the last run, which is left out where it is empty.
    final = np.zeros(count.size, np.int64)
    some = np.flatnonzero(count)
    final[some] = whole.end[whole.starts[some + 1] - 1]
    rest = final < pixels
    starts = np.concatenate([[0], np.cumsum(2 * count + rest)])
    runs = np.empty(starts[-1], np.int64)
    at = 2 * np.arange(owner.size) + np.repeat(starts[:-1] - 2 * whole.starts[:-1], count)
    previous = np.concatenate([[0], whole.end[:-1]])
    previous[whole.starts[some]] = 0
    runs[at] = whole.begin - previous
    runs[at + 1] = whole.end - whole.begin
    runs[starts[1:][rest] - 1] = (pixels - final)[rest]
    return _text(runs, starts)


def _text(runs: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = runs.copy()
    values[2:] -= runs[:-2]
    for early in range(3):  # the first three of each mask stand as they are
        at = starts[:-1] + early
        at = at[at < starts[1:]]
        values[at] = runs[at]
    size = np.abs(values + (values < 0))  # -16 fits where 15 does
    lengths = np.ones(values.size, np.int64)
    for place in range(1, LONGEST):
        longer = size >= np.int64(1) << (5 * place - 1)
        if not longer.any():
            break
        lengths += longer
    ends = np.cumsum(lengths)
    codes = np.empty(int(ends[-1]) if ends.size else 0, np.uint8)
    begins = ends - lengths
    for place in range(int(lengths.max(initial=0))):
        at = np.flatnonzero(lengths > place)
        group = (values[at] >> (5 * place)) & 31
        group += 48 + 32 * (lengths[at] > place + 1)
        codes[begins[at] + place] = group
    return codes, np.concatenate([[0], ends])[starts]
