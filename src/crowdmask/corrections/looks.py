"""What a picture looks like, in 64 numbers: enough to tell pictures apart after a tool has saved one anew."""

from __future__ import annotations

import numpy as np

PARTS = 8
"""Rows and columns of parts."""

_GREY = np.array([299, 587, 114])
"""Shares of red, green and blue in the grey, in thousandths (ITU-R BT.601)."""


def looks(picture: np.ndarray) -> str:
    """Mean grey of a picture's 8 x 8 parts, as hexadecimal text (our choice).

    Part i of a side of n pixels goes from floor(i n / 8) to ceil((i + 1) n / 8), so a side below 8 has parts that
    share pixels. Means are rounded half up, row by row.

    Args:
        picture: uint8 (H, W, 3) RGB or (H, W) grey, not empty.

    Returns:
        128 digits, two a part.
    """
    height, width = picture.shape[:2]
    means = bytearray()
    for top, bottom in _parts(height):
        for left, right in _parts(width):
            part = picture[top:bottom, left:right]
            pixels = part.shape[0] * part.shape[1]
            sums = part.sum(axis=(0, 1), dtype=np.int64)
            total, weight = (int(_GREY @ sums), 1000) if picture.ndim == 3 else (int(sums), 1)
            means.append((2 * total + weight * pixels) // (2 * weight * pixels))
    return means.hex()


def _parts(side: int) -> list[tuple[int, int]]:
    return [(side * i // PARTS, -(-side * (i + 1) // PARTS)) for i in range(PARTS)]
