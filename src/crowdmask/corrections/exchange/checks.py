"""What the readers of tools' files check alike: sizes, numbers, ids, who and when, and how much one file may ask for.

Runs here are row by row (C order) and half-open: run i covers the pixels [begin[i], end[i]).
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from itertools import chain
from typing import Any

import numpy as np

from crowdmask.corrections.drawing import paint
from crowdmask.corrections.exchange import outlines, runs
from crowdmask.corrections.exchange.base import (
    MAX_COORDINATE,
    MAX_PIXELS,
    MAX_POINTS,
    MAX_SHAPES,
    MAX_SIDE,
    POINT_ID,
    File,
)
from crowdmask.corrections.exchange.budget import Budget
from crowdmask.errors import DataError, printable
from crowdmask.masks.rle import Window

_ID = re.compile(rf"(?<![A-Za-z0-9_]){POINT_ID}\s*[=:]\s*(\d{{1,10}})(?!\d)", re.ASCII)
_MAX_ID = 2**31
_LARGE = "Heads are small: is it a drawing of something else? If not, bring the pictures back in several files."


class Checks:
    """The checks of one file, with its name in every error.

    Args:
        file: File that is read.
        way_out: What the user can do about a fault that has no better advice.
    """

    def __init__(self, file: File, way_out: str) -> None:
        self._name = file.name
        self._way_out = way_out
        self._budget = Budget(len(file.content))

    def error(self, where: str, problem: str, way_out: str | None = None) -> DataError:
        """An error that names the file, the place in it, what is wrong there, and the way out."""
        return DataError(self._name, f"{where}: {problem}" if where else problem, way_out or self._way_out)

    def picture(self, where: str, height: Any, width: Any) -> tuple[int, int]:
        """Begin a picture: its size, checked.

        Args:
            where: Place in the file.
            height: As the file says it: a whole number, also as text.
            width: As the file says it.

        Raises:
            DataError: not whole numbers, or beyond the limits.
        """
        found = whole(height), whole(width)
        if found[0] is None or found[1] is None or min(found[0], found[1]) < 1:
            raise self.error(where, f"its size is no pair of whole numbers from 1: {short(width)} x {short(height)}")
        if max(found[0], found[1]) > MAX_SIDE or found[0] * found[1] > MAX_PIXELS:
            raise self.error(
                where,
                f"its size {found[1]} x {found[0]} is beyond {MAX_SIDE} pixels a side or {MAX_PIXELS} altogether",
            )
        self._budget.new_picture()
        return found[0], found[1]

    def count(self, where: str, before: int) -> None:
        """Before one more shape of a picture, which has `before` already.

        Raises:
            DataError: too many.
        """
        if before >= MAX_SHAPES:
            raise self.error(where, f"more than {MAX_SHAPES} shapes on one picture", "Leave out what is no head.")

    def spend(self, where: str, pixels: int, work: int = 0) -> None:
        """Before a window of the picture is made: its pixels are counted, and the work for it if that is more.

        Raises:
            DataError: the windows of the picture, or of the file, get too large or costly together.
        """
        if pixels > outlines.MAX_BOX:
            raise self.error(where, f"its box has {pixels} pixels, more than {outlines.MAX_BOX}", _LARGE)
        try:
            self._budget.draw(max(pixels, work))
            self._budget.keep(pixels)
        except ValueError as error:
            raise self.error(where, str(error), _LARGE) from None

    def pairs(self, where: str, points: Any) -> list[float]:
        """Coordinates of a JSON list [[x, y], ...]: x, y, x, y, ...

        Raises:
            DataError: no such list, too many points, or not numbers.
        """
        if not isinstance(points, list):
            raise self.error(where, "it has no list of points")
        if len(points) > MAX_POINTS:
            raise self.error(where, f"an outline of more than {MAX_POINTS} points", "Draw it anew, or as a mask.")
        # Types and lengths by sets: such lists may be long, and Python's own loops are slow.
        if not set(map(type, points)) <= {list} or not set(map(len, points)) <= {2}:
            raise self.error(where, "its points are not pairs of numbers")
        flat = list(chain.from_iterable(points))
        if not set(map(type, flat)) <= {int, float}:
            raise self.error(where, "its points are not pairs of numbers")
        return [float(value) if abs(value) < 1e300 else math.inf for value in flat]

    def ring(self, where: str, ring: list[float]) -> None:
        """Check the corners of an outline, (x, y, x, y, ...); one is enough, as tracing a mask of one pixel gives.

        Raises:
            DataError: no points or too many, one that is not finite or far away.
        """
        if not ring:
            raise self.error(where, "an outline without points", "Delete the shape, or draw it anew.")
        if len(ring) > 2 * MAX_POINTS:
            raise self.error(where, f"an outline of more than {MAX_POINTS} points", "Draw it anew, or as a mask.")
        far = np.abs(np.array(ring)).max()
        if not np.isfinite(far):
            raise self.error(where, "a coordinate is not finite")
        if far > MAX_COORDINATE:
            raise self.error(where, f"a coordinate beyond {MAX_COORDINATE:.0f} pixels")

    def readings(self, where: str, ring: list[float], height: int, width: int, corner: bool) -> tuple[Window, ...]:
        """What an outline covers, by the conventions of `outlines.readings`.

        Args:
            where: Place in the file.
            ring: Its corners (x, y, x, y, ...).
            height: Of the picture, pixels.
            width: Of the picture.
            corner: Whether integers are pixel corners (else centres) in this format.

        Raises:
            DataError: as `ring`; or too large, or too costly to draw.
        """
        self.ring(where, ring)
        try:
            return outlines.readings([ring], height, width, corner, self._budget)
        except ValueError as error:
            raise self.error(where, str(error), _LARGE) from None

    def window(self, where: str, begin: np.ndarray, end: np.ndarray, width: int, x0: int = 0, y0: int = 0) -> Window:
        """Tight mask of runs on a box; nothing larger than the mask's own box is allocated.

        Args:
            where: Place in the file.
            begin: int64 (n,), ascending: first pixels of runs, row by row in the box.
            end: int64 (n,): one past their last pixels, above `begin`, at most the next begin.
            width: Of the box, pixels.
            x0: Left column of the box in the picture.
            y0: Its top row.

        Raises:
            DataError: too large together with the shapes before.
        """
        turned = paint(begin, end, width, lambda pixels: self.spend(where, pixels))  # columns for rows
        return Window(x0 + turned.y0, y0 + turned.x0, np.ascontiguousarray(turned.mask.T))


def row_runs(mask: np.ndarray) -> np.ndarray:
    """Run lengths of a bool (h, w) mask row by row, int64 (n,), the first for background (it may be 0)."""
    flat = mask.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate(([0], edges, [flat.size]))
    lengths = np.diff(bounds)
    return np.concatenate(([0], lengths)) if flat.size and flat[0] else lengths


def whole(value: Any) -> int | None:
    """A whole number of at most 18 digits, also as text or as 12.0; None for anything else."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(-?\d{1,18})(?:\.0*)?\s*", value, re.ASCII) if len(value) < 100 else None
        return int(found[1]) if found else None
    number = runs.whole(value)
    return number if number is not None and abs(number) < 10**18 else None


def point_id(value: Any) -> int | None:
    """An id that came back as a number of its own; None where it is none of ours."""
    number = whole(value)
    return number if number is not None and 0 <= number < _MAX_ID else None


def point_id_in(text: Any) -> int | None:
    """The id of `point_id=12` within free text; None where it has none."""
    found = _ID.search(text[:10_000]) if isinstance(text, str) else None
    return point_id(int(found[1])) if found else None


def author(*names: Any) -> str | None:
    """The first name that is text with something in it, made printable and at most 200 characters."""
    for name in names:
        if isinstance(name, str) and name[:1000].strip():
            return printable(name[:1000].strip(), 200)
    return None


def iso_time(*values: Any) -> str | None:
    """The first value that is a time, in ISO 8601; None where none is."""
    for value in values:
        if isinstance(value, str) and len(value) <= 64:
            try:
                return datetime.fromisoformat(value.strip()).isoformat()
            except ValueError:
                continue
    return None


def short(value: Any) -> str:
    """A value of a file for a message."""
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'table'} of {len(value)}"
    text = value[:60] if isinstance(value, str) else value
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number of many digits"
    return repr(text)
