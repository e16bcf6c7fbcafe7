"""Masks as windows and COCO run lengths.

A window mask is `(x0, y0, mask)`: the bool array (h, w) of the pixels [y0, y0 + h) x [x0, x0 + w) of the image; all
pixels outside are 0. Run lengths go column by column (Fortran order), as COCO wants them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco


@dataclass(frozen=True)
class Window:
    """A mask on a rectangle of the image.

    Attributes:
        x0: Left column, pixels.
        y0: Top row, pixels.
        mask: bool (h, w).
    """

    x0: int
    y0: int
    mask: np.ndarray

    @property
    def area(self) -> int:
        """Number of mask pixels."""
        return int(np.count_nonzero(self.mask))

    def tight(self) -> Window:
        """The same mask on its bounding box; an empty mask gets a window of 0 x 0 at the same corner."""
        rows = np.flatnonzero(self.mask.any(axis=1))
        cols = np.flatnonzero(self.mask.any(axis=0))
        if rows.size == 0:
            return Window(self.x0, self.y0, np.zeros((0, 0), bool))
        top, left = int(rows[0]), int(cols[0])
        return Window(self.x0 + left, self.y0 + top, self.mask[top : rows[-1] + 1, left : cols[-1] + 1])

    def cut(self, x0: int, y0: int, w: int, h: int) -> np.ndarray:
        """bool (h, w): the mask on another rectangle, 0 where this window has no pixels."""
        out = np.zeros((h, w), bool)
        part = self.within(x0, y0, w, h)
        if part.mask.size:
            ph, pw = part.mask.shape
            out[part.y0 - y0 : part.y0 - y0 + ph, part.x0 - x0 : part.x0 - x0 + pw] = part.mask
        return out

    def within(self, x0: int, y0: int, w: int, h: int) -> Window:
        """The part of this window that lies in a rectangle, not copied; of size 0 where they do not meet."""
        mh, mw = self.mask.shape
        left, top = max(x0, self.x0), max(y0, self.y0)
        right, bottom = max(left, min(x0 + w, self.x0 + mw)), max(top, min(y0 + h, self.y0 + mh))
        return Window(left, top, self.mask[top - self.y0 : bottom - self.y0, left - self.x0 : right - self.x0])

    def full(self, height: int, width: int) -> np.ndarray:
        """bool (height, width): the mask on the whole image."""
        return self.cut(0, 0, width, height)

    def columns(self) -> dict[str, int | bytes]:
        """The window columns of a table: x0, y0, w, h, counts."""
        h, w = self.mask.shape
        return {"x0": self.x0, "y0": self.y0, "w": w, "h": h, "counts": encode(self.mask)}

    @classmethod
    def from_columns(cls, row: dict) -> Window:
        """Inverse of `columns`."""
        return cls(row["x0"], row["y0"], decode(row["counts"], row["h"], row["w"]))


def encode(mask: np.ndarray) -> bytes:
    """COCO compressed counts of a bool (h, w) mask; empty bytes for an array without pixels."""
    if mask.size == 0:
        return b""
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def decode(counts: bytes, h: int, w: int) -> np.ndarray:
    """bool (h, w) from COCO compressed counts."""
    if h == 0 or w == 0:
        return np.zeros((h, w), bool)
    return coco.decode({"size": [h, w], "counts": counts}).astype(bool)


def full_counts(window: Window, height: int, width: int) -> bytes:
    """COCO compressed counts of the mask on the whole image, without building the image.

    Byte-identical to encoding `window.full(height, width)`.
    """
    h, w = window.mask.shape
    if window.x0 < 0 or window.y0 < 0 or window.x0 + w > width or window.y0 + h > height:
        window = window.within(0, 0, width, height)
        h, w = window.mask.shape
    flat = window.mask.ravel(order="F")
    if not flat.any():
        return _compress([height * width], height, width)
    padded = np.concatenate(([False], flat, [False]))
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    starts, ends = edges[0::2], edges[1::2]
    # A run of the window that crosses columns is one run per column in the image, unless the window is as high.
    if h < height:
        first, last = starts // h, (ends - 1) // h
        pieces = last - first + 1
        column = np.repeat(first, pieces) + _ranges(pieces)
        starts = np.maximum(np.repeat(starts, pieces), column * h)
        ends = np.minimum(np.repeat(ends, pieces), (column + 1) * h)
    column = starts // h
    offset = (window.x0 + column) * height + window.y0 - column * h
    begin, end = starts + offset, ends + offset
    bounds = np.empty(2 * begin.size + 2, np.int64)
    bounds[0], bounds[-1] = 0, height * width
    bounds[1:-1:2], bounds[2:-1:2] = begin, end
    counts = np.diff(bounds)
    if counts[-1] == 0:
        counts = counts[:-1]
    return _compress(counts.tolist(), height, width)


def _ranges(lengths: np.ndarray) -> np.ndarray:
    """0..n-1 for each n, one after the other."""
    total = int(lengths.sum())
    return np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _compress(counts: list[int], height: int, width: int) -> bytes:
    return coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]


def from_full(counts: bytes, height: int, width: int) -> Window:
    """Tight window of a mask given as COCO compressed counts of the whole image."""
    rle = {"size": [height, width], "counts": counts}
    x, y, w, h = (int(v) for v in coco.toBbox(rle))
    if w == 0 or h == 0:
        return Window(0, 0, np.zeros((0, 0), bool))
    return Window(x, y, decode(counts, height, width)[y : y + h, x : x + w])


def digest(window: Window) -> str:
    """SHA-256 of a mask: of its bounding box and counts, so that equal masks have equal hashes."""
    tight = window.tight()
    if tight.mask.size == 0:
        tight = Window(0, 0, tight.mask)  # no pixels: the corner means nothing
    h, w = tight.mask.shape
    return hashlib.sha256(f"{tight.x0},{tight.y0},{w},{h},".encode() + encode(tight.mask)).hexdigest()
