"""Run lengths as they stand in COCO files, parsed before anything is allocated."""

from __future__ import annotations

from typing import Any

import numpy as np

from crowdmask.corrections.drawing import from_runs, parse_counts
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
        counts = text(counts, budget)
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


def counts_of(drawn: dict[str, Any], height: int, width: int) -> Any:
    """What stands as `counts` of run lengths, once their `size` is that of the picture.

    Raises:
        ValueError: another size.
    """
    size = drawn.get("size")
    if not isinstance(size, list) or [whole(side) for side in size] != [height, width]:
        raise ValueError(f"run lengths of another size than the image, which has {[height, width]}")
    return drawn.get("counts")


def text(counts: str, budget: Budget) -> str:
    """Compressed counts, out of the form `b'...'` where they have it; charged, but not looked at.

    Args:
        counts: As they stand in a file.
        budget: What the picture's shapes may cost.

    Raises:
        ValueError: more than `MAX_COUNTS` characters, or too costly.
    """
    if len(counts) > MAX_COUNTS:
        raise ValueError(f"counts of more than {MAX_COUNTS} characters")
    if counts[:2] in ("b'", 'b"') and counts[-1] == counts[1] and len(counts) > 2:
        counts = counts[2:-1].replace("\\\\", "\\")
    budget.draw(_CHARACTER * len(counts))
    return counts


def _compressed(number: int) -> str:
    """One number in COCO's compressed form: what an empty mask has."""
    made = ""
    while True:
        group, number = number & 31, number >> 5
        more = number != 0 or bool(group & 16)
        made += chr(48 + group + 32 * more)
        if not more:
            return made


def window(runs: np.ndarray, height: int, budget: Budget) -> Window:
    """Tight window of checked run lengths; see `drawing.from_runs`. Not charged as kept.

    Args:
        runs: int64 (n,), background first, that add up to the picture; one after another they fit in 2**28 pixels.
        height: Of the picture, pixels.
        budget: What the picture's shapes may cost.

    Raises:
        ValueError: the box is larger than what is left for the picture's shapes, or too costly.
    """

    def allow(pixels: int) -> None:
        budget.room(pixels)
        budget.draw(pixels)

    return from_runs(runs, height, allow)
