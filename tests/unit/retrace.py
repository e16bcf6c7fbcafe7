"""Masks written as outlines the way that annotation tools and converters do it, and read back by both conventions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np
from skimage.measure import approximate_polygon, find_contours

from crowdmask.corrections.exchange.base import Shape
from crowdmask.corrections.exchange.outlines import readings
from crowdmask.masks.rle import Window

Ring = np.ndarray  # float (n, 2) as (x, y)


def by_cv2(mask: np.ndarray, tolerance: float = 1.0) -> list[Ring]:
    """Outer lines through the centres of the border pixels; fewer than 3 corners are no polygon."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    rings = [cv2.approxPolyDP(line, tolerance, True).reshape(-1, 2).astype(float) for line in found]
    return [ring for ring in rings if len(ring) >= 3]


def by_cv2_fully(mask: np.ndarray) -> list[Ring]:
    return by_cv2(mask, 0.0)


def by_chains(mask: np.ndarray) -> list[Ring]:
    """Outer lines through Teh and Chin's dominant points, as datumaro takes them: no bound on what they cut off."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_KCOS)
    return [line.reshape(-1, 2).astype(float) for line in found if len(line) >= 3]


def by_skimage(mask: np.ndarray, tolerance: float = 1.0) -> list[Ring]:
    """Lines half-way between mask and background, those of holes as rings of their own; diagonal pixels are apart."""
    rings = []
    for line in find_contours(np.pad(mask, 1).astype(float), 0.5):
        line = approximate_polygon(line - 1, tolerance)
        ring = line[:-1, ::-1]
        if len(ring) >= 3 and abs(area(ring)) >= 1:
            rings.append(ring)
    return rings


def by_skimage_fully(mask: np.ndarray) -> list[Ring]:
    return [line[:-1, ::-1] - 1 for line in find_contours(np.pad(mask, 1).astype(float), 0.5)]


def by_edges(mask: np.ndarray) -> list[Ring]:
    """Outer lines along the pixels' edges: (0, 0) is the corner of the first pixel. Holes are dropped."""
    cells = np.pad(mask, 1).astype(np.int8)
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    steps = np.diff(cells, axis=0)[:, 1:-1]  # the mask is always on the right-hand side of the way
    for y, x in np.argwhere(steps == 1):
        after.setdefault((x, y), []).append((x + 1, y))
    for y, x in np.argwhere(steps == -1):
        after.setdefault((x + 1, y), []).append((x, y))
    steps = np.diff(cells, axis=1)[1:-1]
    for y, x in np.argwhere(steps == 1):
        after.setdefault((x, y + 1), []).append((x, y))
    for y, x in np.argwhere(steps == -1):
        after.setdefault((x, y), []).append((x, y + 1))
    rings = []
    while after:
        begin = next(iter(after))
        way, here, heading = [], begin, (0, 0)
        while True:
            way.append(here)
            right = (here[0] - heading[1], here[1] + heading[0])  # at a crossing turn right: diagonal pixels are apart
            ends = after[here]
            there = right if right in ends else ends[0]
            ends.remove(there)
            if not ends:
                del after[here]
            heading, here = (there[0] - here[0], there[1] - here[1]), there
            if here == begin:
                break
        ring = np.array(way, float)
        if area(ring) > 0:
            rings.append(ring)
    return rings


def area(ring: Ring) -> float:
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


Tracer = Callable[[np.ndarray], list[Ring]]
TRACERS: dict[str, Tracer] = {
    "cv2": by_cv2,
    "cv2, every point": by_cv2_fully,
    "cv2, chains": by_chains,
    "skimage": by_skimage,
    "skimage, every point": by_skimage_fully,
    "edges": by_edges,
}


def outline(rings: Iterable[Ring], height: int, width: int, where: str = "shape", **more) -> Shape:
    """As a tool's file says it that puts (0, 0) at the corner of the first pixel."""
    found = readings([np.round(ring, 2) for ring in rings], height, width, corner=True)
    return Shape(where, found, False, **more)


def retrace(
    window: Window, height: int, width: int, tracer: Tracer, *, split: bool = False, where: str = "shape", **more
) -> list[Shape]:
    """Outlines of a mask: one shape, or one a ring; none where nothing is left."""
    y0, x0 = max(window.y0 - 2, 0), max(window.x0 - 2, 0)
    h, w = (n + 4 for n in window.mask.shape)
    rings = [ring + np.array([x0, y0]) for ring in tracer(window.cut(x0, y0, w, h))]
    groups: Sequence[Sequence[Ring]] = [[ring] for ring in rings] if split else [rings] if rings else []
    return [
        outline(group, height, width, f"{where}{'abcdefghijklmnopqrstuvwxyz'[i % 26] if split else ''}", **more)
        for i, group in enumerate(groups)
    ]


def exact(window: Window, where: str = "shape", **more) -> Shape:
    return Shape(where, (window.tight(),), True, **more)


def boxes_apart(places: Iterable[tuple[int, int, int, int]]) -> bool:
    """Whether no two boxes (x0, y0, x1, y1) share a pixel."""
    return not any(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in itertools.combinations(places, 2)
    )
