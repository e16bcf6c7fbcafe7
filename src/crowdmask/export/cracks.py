"""Outlines along the sides of pixels: polygons that hold exactly the pixels of a mask.

Corners lie on whole numbers where (0, 0) is the upper left corner of the first pixel, so a pixel's centre is at a half
and never on a line. A polygon has the mask's own area, and filling it by the even-odd rule, or by the non-zero rule,
gives the mask back, holes and fragments included (our choice; tools that fill with lines drawn add the lines).
"""

from __future__ import annotations

import numpy as np

NEAREST = 64
"""Most rings of a mask for which the shortest bridges are looked for."""

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Right, down, left, up, as (x, y)."""
_RIGHT, _DOWN, _LEFT, _UP = range(4)


def _turns() -> list[list[int]]:
    """Way on from a corner, by the pixels around it (1, 2, 4, 8 = upper left, upper right, lower left, lower right) and
    the way that led there; the mask is on the right hand. Where two pixels meet only at the corner, on to the other."""
    table = [[-1] * 4 for _ in range(16)]
    for code in range(16):
        upper_left, upper_right, lower_left, lower_right = (bool(code & bit) for bit in (1, 2, 4, 8))
        ways = []
        if lower_right and not upper_right:
            ways.append(_RIGHT)
        if lower_left and not lower_right:
            ways.append(_DOWN)
        if upper_left and not lower_left:
            ways.append(_LEFT)
        if upper_right and not upper_left:
            ways.append(_UP)
        for came in range(4):
            if len(ways) == 1:
                table[code][came] = ways[0]
            elif len(ways) == 2:  # to the left of the way that led there
                table[code][came] = (came - 1) % 4
    return table


_TURN = _turns()


def rings(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Outlines of a bool (h, w) mask: corners (x, y) of each ring where it turns, the mask on the right hand.

    A fragment has one ring (pixels that meet at a corner are of one fragment), clockwise as seen on a screen, and one
    for each of its holes, the other way round.
    """
    h, w = mask.shape
    cells = np.zeros((h + 2, w + 2), np.uint8)
    cells[1:-1, 1:-1] = mask
    codes = cells[:-1, :-1] + 2 * cells[:-1, 1:] + 4 * cells[1:, :-1] + 8 * cells[1:, 1:]
    stride = w + 1
    around = codes.tobytes()
    # Every ring goes to the right somewhere: above a pixel with none above it.
    starts = np.flatnonzero((codes & 10) == 8).tolist()
    moves = (1, stride, -1, -stride)
    seen = bytearray(len(around))
    found = []
    for start in starts:
        if seen[start]:
            continue
        corners, at, way = [], start, _RIGHT
        while True:
            if way == _RIGHT:
                seen[at] = 1
            at += moves[way]
            turned = _TURN[around[at]][way]
            if turned != way:
                corners.append((at % stride, at // stride))
                way = turned
            if at == start and way == _RIGHT:
                break
        found.append(corners)
    return found


def polygon(mask: np.ndarray) -> list[tuple[int, int]]:
    """One polygon of a mask with at least one pixel: its rings joined by bridges of no width along pixel sides.

    Args:
        mask: bool (h, w).

    Returns:
        Corners (x, y), closed without repeating the first.
    """
    return joined(rings(mask))


def joined(found: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Rings as one polygon; see `polygon`."""
    path = found[0]
    for ring in found[1:]:
        k, m = _nearest(path, ring) if len(found) <= NEAREST else (0, 0)
        (ax, ay), (bx, by) = path[k], ring[m]
        around = [*ring[m + 1 :], *ring[:m], ring[m]]
        if (ax, ay) != (bx, by):
            knee = [(bx, ay)] if ax != bx and ay != by else []
            around = [*knee, ring[m], *around, *knee, path[k]]
        path = path[: k + 1] + around + path[k + 1 :]
    return path


def _nearest(path: list[tuple[int, int]], ring: list[tuple[int, int]]) -> tuple[int, int]:
    """Indices of the two corners with the least distance along x and y."""
    a, b = np.array(path), np.array(ring)
    distance = np.abs(a[:, None] - b).sum(axis=2)
    k, m = divmod(int(distance.argmin()), len(ring))
    return k, m
