"""What the audit measures of one image file: pure functions of pixels, and one that reads a file's header bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from crowdmask.audit.checks import Bars

FLAT_LEVELS = 12
"""Grey levels by which the pixels of a flat border may differ, as JPEG makes them."""

BAR_PX, BAR_SHARE = 8, 0.02
"""A flat border is at least so many pixels wide, and that share of the side (our choice)."""

EDGE_DEPTH, EDGE_SHARE = 0.02, 0.5
"""Within that share of the side from a flat border, that share of places has another colour (our choice)."""

LOOK_SIDE = 32
"""Side in pixels of the small grey picture by which pictures are compared."""


def flat_bars(pixels: np.ndarray) -> Bars:
    """Width of the border of one colour on each side, 0 where it is too narrow to count.

    Args:
        pixels: uint8 (H, W, 3).

    Returns:
        Bars in pixels; together they cover an image of one colour.
    """
    height, width = pixels.shape[:2]
    rows, columns = pixels, pixels.swapaxes(0, 1)
    top, bottom = _flat_lines(rows), _flat_lines(rows[::-1])
    left, right = _flat_lines(columns), _flat_lines(columns[::-1])
    if top == height or left == width:
        return Bars(height, 0, width, 0)
    enough_y, enough_x = max(BAR_PX, BAR_SHARE * height), max(BAR_PX, BAR_SHARE * width)
    return Bars(
        *(size if size >= enough_y else 0 for size in (top, bottom)),
        *(size if size >= enough_x else 0 for size in (left, right)),
    )


def _flat_lines(lines: np.ndarray) -> int:
    """How many of the first lines (N, M, 3) have one colour, together, and end at an edge; 0 where they fade out.

    A dark or white background ends where a few things begin, a letterbox bar where the whole picture begins.
    """
    low = high = lines[0, 0].astype(int)
    for number, line in enumerate(lines):
        low, high = np.minimum(low, line.min(axis=0)), np.maximum(high, line.max(axis=0))
        if (high - low > FLAT_LEVELS).any():
            middle = np.median(lines[:number].reshape(-1, 3), axis=0) if number else low
            beyond = lines[number : number + max(4, round(EDGE_DEPTH * len(lines)))].astype(int)
            other = (np.abs(beyond - middle) > FLAT_LEVELS).any(axis=2)
            return number if other.any(axis=0).mean() >= EDGE_SHARE else 0
    return len(lines)


def pixel_digest(pixels: np.ndarray) -> str:
    """Hex digest of size and pixels, the same for files of any format with the same picture."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def look(pixels: np.ndarray) -> np.ndarray:
    """The picture at `LOOK_SIDE` x `LOOK_SIDE` in grey, averaged over areas: uint8 (32, 32)."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (LOOK_SIDE, LOOK_SIDE), interpolation=cv2.INTER_AREA)


def bits_of_png(path: str | Path) -> int:
    """Bits a sample of a PNG file, which Pillow does not tell of colour; 8 for other files."""
    with open(path, "rb") as file:
        head = file.read(25)
    return head[24] if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 25 else 8


def thumbnail(pixels: np.ndarray, points_xy: np.ndarray, flagged: np.ndarray, side: int = 900) -> bytes:
    """JPEG of a picture with its points: dots, and rings around the flagged ones.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        points_xy: float64 (N, 2), pixels, finite.
        flagged: bool (N,).
        side: Longest side of the result, pixels.

    Returns:
        JPEG file content; points outside are drawn at the border.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels.copy()
    # The centre of the first pixel, 0, is half a pixel from the edge at every scale.
    places = np.clip((points_xy + 0.5) * scale - 0.5, 0, np.array(size) - 1)
    for (x, y), bad in zip(np.floor(places + 0.5).astype(int).tolist(), flagged.tolist(), strict=True):
        if bad:
            cv2.circle(canvas, (x, y), 9, (0, 0, 0), 4, cv2.LINE_AA)
            cv2.circle(canvas, (x, y), 9, (255, 90, 60), 2, cv2.LINE_AA)
        cv2.circle(canvas, (x, y), 2, (0, 0, 0), -1)
        cv2.circle(canvas, (x, y), 1, (255, 235, 59), -1)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 72])
    if not done:
        raise ValueError("the picture could not be encoded")
    return data.tobytes()
