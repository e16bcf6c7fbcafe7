"""What a picture looks like, in 64 numbers: enough to tell pictures apart after a tool has saved one anew."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

from crowdmask.corrections.exchange.base import MAX_PIXELS

PARTS = 8
"""Rows and columns of parts."""
CLOSE = 8
"""Grey levels that a part's mean may change when a tool saves a picture anew."""

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


def alike(content: bytes, sha256: str, look: str) -> bool:
    """Whether a picture's file shows what was handed out, perhaps saved anew.

    Args:
        content: Of the file.
        sha256: Of the file that was handed out.
        look: Its `looks`.

    Returns:
        True for equal bytes, and where no part's mean differs by more than `CLOSE` grey levels (our choice). False for
        what is no picture.
    """
    if hashlib.sha256(content).hexdigest() == sha256:
        return True
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP", "WEBP", "TIFF")) as file:
            if file.size[0] * file.size[1] > MAX_PIXELS:
                return False
            pixels = np.asarray(file.convert("RGB"))
    except Exception:  # whatever Pillow says of a damaged file, it is not the picture
        return False
    pairs = zip(bytes.fromhex(looks(pixels)), bytes.fromhex(look), strict=True)
    return all(abs(a - b) <= CLOSE for a, b in pairs)
