"""Run lengths as they stand in COCO files, parsed before anything is allocated."""

from __future__ import annotations

from typing import Any

import numpy as np

from crowdmask.corrections.drawing import parse_counts
from crowdmask.corrections.exchange.budget import Budget
from crowdmask.corrections.native import MAX_COUNTS
from crowdmask.masks.rle import Window

MAX_RUNS = 4 << 20
"""Most uncompressed run lengths of one shape."""

_CHARACTER = 64
"""Work of one character of compressed counts, or of one run, in the budget's units."""


def whole(value: Any) -> int | None:
    """A JSON number without fraction as int (12 and 12.0); None for anything else."""
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() else None


def checked(counts: Any, height: int, width: int, budget: Budget) -> np.ndarray:
    """Run lengths of a mask, background first, column by column: int64 (n,).

    Args:
        counts: Compressed text, also in the form `b'...'` that Python prints of bytes; or a list of numbers.
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        budget: What the picture's shapes may cost.

    Raises:
        ValueError: another thing, a negative run, or a sum other than height x width; or too costly.
    """
    pixels = height * width
    if isinstance(counts, str):
        if len(counts) > MAX_COUNTS:
            raise ValueError(f"counts of more than {MAX_COUNTS} characters")
        if counts[:2] in ("b'", 'b"') and counts[-1] == counts[1] and len(counts) > 2:
            counts = counts[2:-1].replace("\\\\", "\\")
        budget.draw(_CHARACTER * len(counts))
        if counts == _compressed(pixels):
            return np.array([pixels], np.int64)
        return parse_counts(counts, height, width)
    if not isinstance(counts, list):
        raise ValueError("counts are neither text nor a list of numbers")
    if not 0 < len(counts) <= MAX_RUNS:
        raise ValueError(f"{len(counts)} run lengths, expected 1 to {MAX_RUNS}")
    budget.draw(_CHARACTER * len(counts))
    numbers = [whole(number) for number in counts]
    if any(number is None or not 0 <= number <= pixels for number in numbers):
        raise ValueError("a run length is negative, larger than the picture, or no whole number")
    runs = np.array(numbers, np.int64)
    if runs.sum() != pixels:
        raise ValueError(f"counts add up to {runs.sum()}, not to the {pixels} pixels of the picture")
    return runs


def _compressed(number: int) -> str:
    """One number in COCO's compressed form: what an empty mask has."""
    text = ""
    while True:
        group, number = number & 31, number >> 5
        more = number != 0 or bool(group & 16)
        text += chr(48 + group + 32 * more)
        if not more:
            return text


def window(runs: np.ndarray, height: int, budget: Budget) -> Window:
    """Tight window of checked run lengths; nothing but its own box is allocated. Not charged as kept.

    Args:
        runs: int64 (n,), background first, that add up to the picture; one after another they fit in 2**28 pixels.
        height: Of the picture, pixels.
        budget: What the picture's shapes may cost.

    Returns:
        The mask; of size 0 x 0 where the runs hold no pixel.

    Raises:
        ValueError: the box is larger than what is left for the picture's shapes, or too costly.
    """
    stops = np.cumsum(runs)
    begin, end = stops[0::2][: runs[1::2].size], stops[1::2]
    some = end > begin
    begin, end = begin[some], end[some]
    if not begin.size:
        return Window(0, 0, np.zeros((0, 0), bool))
    first, last = begin // height, (end - 1) // height
    left, w = int(first[0]), int(last[-1] - first[0]) + 1
    if (last > first).any():  # a run over a column's end holds its lowest pixel and the next one's uppermost
        top, h = 0, height
    else:
        top = int((begin % height).min())
        h = int(((end - 1) % height).max()) - top + 1
    budget.room(h * w)
    budget.draw(h * w)
    pieces = last - first + 1
    column = np.repeat(first, pieces) + np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = np.maximum(np.repeat(begin, pieces), column * height) - column * height - top
    stop = np.minimum(np.repeat(end, pieces), (column + 1) * height) - column * height - top
    # One cell more in each column, where the steps down of its last row go.
    steps = np.zeros(w * (h + 1), np.int8)
    place = (column - left) * (h + 1)
    steps[place + start] += 1  # no two runs start, or stop, at one pixel
    steps[place + stop] -= 1
    np.cumsum(steps, dtype=np.int8, out=steps)
    return Window(left, top, np.ascontiguousarray(steps.reshape(w, h + 1)[:, :h].T).view(bool))
