"""How alike two masks are: equal, the same up to the noise of re-tracing, or overlapping by so much.

Programs that turn masks into outlines and back move borders by up to a pixel, fill holes and lose what is too thin.
Measured here: cv2.findContours with approxPolyDP of 1 pixel, skimage's find_contours with approximate_polygon of 1
pixel (as datumaro does), both with every point, and lines along the pixels' edges, on 1,069 drawn blobs of radius 0.5
to 30. All stayed between the mask shrunk and grown by a pixel; at most 0.18 of the ring around a mask was filled and at
most 0.62 of its border lost, and the overlap was 0.43 at least (in masks of some 5 pixels).

No such bound holds for OpenCV's Teh-Chin chains (Teh and Chin 1989, as datumaro and CVAT's converter use them): their
corners lie on the border, but the lines between them may cut off any curve. They depend on nothing but the mask,
though, so they are drawn again and compared pixel by pixel (`Noise.chains`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import cv2
import numpy as np

from crowdmask.corrections.exchange import outlines
from crowdmask.masks.rle import Window

LEAST_IOU = 0.4
"""Least overlap of a mask with its re-traced outline: for small masks, whose shrunk self is empty."""
MOST_GROWN = 0.5
"""Largest part of the ring around a mask that tracing fills; a mask grown on all sides is an edit."""
MOST_SHRUNK = 0.75
"""Largest part of a mask's border pixels that tracing loses; a mask shrunk on all sides is an edit."""
SPECK = 4
"""Largest outline, pixels, that noise alone may leave on a mask besides its parts and holes, and"""
SPECK_SHARE = 0.05
"""the largest part of the mask's area that it may have."""
MAX_PIECES = 200
"""Most shapes that are taken for parts of one mask: bounds the time."""
MAX_PAIRS = 500_000
"""Most pairs of a mask and a shape whose windows touch: bounds the time."""
EMPTY = Window(0, 0, np.zeros((0, 0), bool))

Key = tuple[int, int, int, bytes]
"""Place, width and bits of a tight window."""

Difference = tuple[int, bool]
"""Pixels that differ within tracing noise, and whether a hole of the mask is among what was not compared."""


def key(window: Window) -> Key:
    """The same for equal masks, and for no others; of a tight window."""
    return window.x0, window.y0, window.mask.shape[1], np.packbits(window.mask).tobytes()


def common(a: Window, b: Window) -> int:
    """Pixels in both masks."""
    h, w = a.mask.shape
    part = b.within(a.x0, a.y0, w, h)
    if not part.mask.size:
        return 0
    y, x = part.y0 - a.y0, part.x0 - a.x0
    return int(np.count_nonzero(part.mask & a.mask[y : y + part.mask.shape[0], x : x + part.mask.shape[1]]))


def iou(a: Window, b: Window) -> float:
    """Common pixels over all pixels; 0 for two empty masks."""
    both = common(a, b)
    return both / (a.area + b.area - both) if both else 0.0


def unite(windows: Sequence[Window]) -> Window:
    """The pixels of any mask, tight."""
    windows = [window for window in windows if window.mask.size]
    if len(windows) < 2:
        return windows[0].tight() if windows else EMPTY
    x0, y0 = min(w.x0 for w in windows), min(w.y0 for w in windows)
    x1 = max(w.x0 + w.mask.shape[1] for w in windows)
    y1 = max(w.y0 + w.mask.shape[0] for w in windows)
    mask = np.zeros((y1 - y0, x1 - x0), bool)
    for w in windows:
        mask[w.y0 - y0 : w.y0 - y0 + w.mask.shape[0], w.x0 - x0 : w.x0 - x0 + w.mask.shape[1]] |= w.mask
    return Window(x0, y0, mask).tight()


def inner_point(window: Window) -> tuple[float, float]:
    """The pixel (x, y) farthest from every pixel outside of the mask; of equally far ones the upper, then the left.

    What lies past the picture is outside. The mask has a pixel.
    """
    solid = np.ascontiguousarray(np.pad(window.mask, 1), np.uint8)
    distance = cv2.distanceTransform(solid, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(int(np.argmax(distance)), distance.shape)
    return float(window.x0 + x - 1), float(window.y0 + y - 1)


def components(mask: np.ndarray, connectivity: Literal[4, 8]) -> list[np.ndarray]:
    """Connected parts of a mask, each bool (h, w)."""
    count, labels = cv2.connectedComponents(np.ascontiguousarray(mask, np.uint8), connectivity=connectivity)
    return [labels == label for label in range(1, count)]


def losable(mask: np.ndarray) -> bool:
    """Whether a tool that keeps outlines, simplified by a pixel, may lose a connected mask: a polygon needs 3 corners.

    So are masks without a square of 3 x 3 pixels, and those whose line through the border pixels has fewer than 3
    corners after cv2.approxPolyDP with 1 pixel, or as a Teh-Chin chain.
    """
    solid = np.ascontiguousarray(np.pad(mask, 1), np.uint8)
    if not cv2.erode(solid, np.ones((3, 3), np.uint8)).any():
        return True
    return any(all(len(line) < 3 for line in lines) for lines in _simplified(solid, 1.0))


def _simplified(solid: np.ndarray, tolerance: float) -> Iterator[list[np.ndarray]]:
    """Outer lines through the border pixels of uint8 (h, w), in each way in which OpenCV's users simplify them."""
    for way in (cv2.CHAIN_APPROX_TC89_KCOS, cv2.CHAIN_APPROX_TC89_L1):
        yield list(cv2.findContours(solid, cv2.RETR_EXTERNAL, way)[0])
    lines, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    yield [cv2.approxPolyDP(line, tolerance, True) for line in lines]


@dataclass(frozen=True)
class Noise:
    """What a re-traced outline of a mask may be.

    Attributes:
        window: The mask, tight, with a pixel.
        tolerance: How far tracing moves a border, pixels; 0 = not at all.
    """

    window: Window
    tolerance: float
    _margin: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Keep the margin of pixels around the window that noise can reach."""
        object.__setattr__(self, "_margin", math.ceil(self.tolerance + 0.5) if self.tolerance > 0 else 0)

    @cached_property
    def solid(self) -> np.ndarray:
        """The mask with the margin around it, uint8 (h, w)."""
        return np.ascontiguousarray(np.pad(self.window.mask, self._margin), np.uint8)

    @cached_property
    def filled(self) -> np.ndarray:
        """The same without holes."""
        lines, _ = cv2.findContours(self.solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        return cv2.drawContours(np.zeros(self.solid.shape, np.uint8), lines, -1, 1, cv2.FILLED)

    @cached_property
    def holes(self) -> list[Window]:
        """The holes of the mask, tight."""
        return [self._placed(part) for part in components(self.filled > self.solid, 4)]

    @cached_property
    def parts(self) -> list[Window]:
        """The parts of the mask, tight; pixels that touch by a corner only are apart."""
        return [self._placed(part) for part in components(self.solid > 0, 4)]

    @cached_property
    def grown(self) -> Window:
        """The mask without holes, grown by the tolerance."""
        return Window(self.window.x0 - self._margin, self.window.y0 - self._margin, self._dilate(self.filled) > 0)

    @cached_property
    def chains(self) -> frozenset[Key]:
        """Keys of the mask as OpenCV's two Teh-Chin chains outline it, and as its approxPolyDP does, which may cut a
        corner by a pixel more than the tolerance; fewer than 3 corners are no outline.
        """
        found = set()
        for lines in _simplified(self.solid, self.tolerance):
            rings = [line.reshape(-1, 2) for line in lines if len(line) >= 3]
            height, width = self.solid.shape
            try:
                drawn = outlines.readings(rings, height, width, corner=False)[0]
            except ValueError:  # more than would be read from a file
                continue
            if drawn.mask.size:
                found.add(key(self._placed(drawn.full(height, width))))
        return frozenset(found)

    @cached_property
    def _ring(self) -> tuple[np.ndarray, int]:
        """The shrunk mask, and the number of the other pixels."""
        inside = cv2.erode(self.solid, self._reach) if self._margin else self.solid
        return inside > 0, int(np.count_nonzero(self.solid > inside))

    @property
    def _reach(self) -> np.ndarray:
        """What a pixel grows into: those whose nearest place is at most the tolerance from its centre."""
        steps = np.arange(-self._margin, self._margin + 1)
        return (np.hypot(steps[:, None], steps[None, :]) <= self.tolerance + 0.5).astype(np.uint8)

    def _dilate(self, solid: np.ndarray) -> np.ndarray:
        return cv2.dilate(solid, self._reach) if self._margin else solid

    def _placed(self, part: np.ndarray) -> Window:
        return Window(self.window.x0 - self._margin, self.window.y0 - self._margin, part).tight()

    def difference(self, reading: Window) -> Difference | None:
        """How a reading of an outline differs from the mask.

        It is the same up to noise when it lies between the mask shrunk and grown by the tolerance (3 x 3 pixels for 1
        pixel), keeps `LEAST_IOU` with it, fills no more than `MOST_GROWN` of the ring around it, and loses no more than
        `MOST_SHRUNK` of its border. An outline cannot carry a hole, so the mask without holes will do as well. So will
        any of its `chains`, pixel by pixel.

        What cannot be told from noise, and is taken for it: an edit that moves parts of the border by at most the
        tolerance; of a mask without a square of 3 x 3 pixels any edit within its neighbour pixels that keeps the
        overlap; filling a hole.

        Args:
            reading: Tight.

        Returns:
            None where they differ by more.
        """
        h, w = self.solid.shape
        x0, y0 = self.window.x0 - self._margin, self.window.y0 - self._margin
        rh, rw = reading.mask.shape
        if not rh or reading.x0 < x0 or reading.y0 < y0 or reading.x0 + rw > x0 + w or reading.y0 + rh > y0 + h:
            return None
        if self._margin == 0:
            return (0, False) if key(reading) == key(self.window) else None
        mask = reading.cut(x0, y0, w, h)
        found = self._moved(mask)
        if found is None:
            whole = self.filled > 0
            # Of a small mask a chain may leave a third, so no overlap is asked for beyond what spares the drawing.
            if np.any(mask & whole) and key(reading) in self.chains:
                found = int(np.count_nonzero(mask != whole)), bool(self.holes)
        return found

    def _moved(self, mask: np.ndarray) -> Difference | None:
        """The difference of a mask, (h, w) as `solid`, that lies between this one shrunk and grown."""
        inside, border = self._ring
        kept = int(np.count_nonzero(mask & inside))
        if kept < np.count_nonzero(inside):
            return None
        lost = int(np.count_nonzero(self.solid > mask))
        if lost > MOST_SHRUNK * border:
            return None
        for whole in (self.solid, self.filled) if self.holes else (self.solid,):
            ring = self._dilate(whole) > whole
            more = mask > whole
            outside = int(np.count_nonzero(more))
            if outside != np.count_nonzero(more & ring) or outside > MOST_GROWN * np.count_nonzero(ring):
                continue
            both = int(np.count_nonzero(mask & (whole > 0)))
            total = int(np.count_nonzero(whole))
            if both >= LEAST_IOU * (total + outside):
                return outside + total - both, whole is not self.solid
        return None

    def best(self, readings: Sequence[Window]) -> Difference | None:
        """The smallest difference of any reading; the first of equally small ones."""
        found = [difference for difference in map(self.difference, readings) if difference is not None]
        return min(found, key=lambda difference: (difference[1], difference[0]), default=None)

    def foreign(self, pieces: Sequence[Sequence[Window]], share: float = 0.0) -> list[int]:
        """Which of several shapes on this mask are no part of it, so that they might be heads of their own.

        Tools give fragments shapes of their own, but cut nothing that hangs together. So a shape belongs to the mask
        when it has at least half of a part of the mask that no smaller shape has, is the line around a hole (an outline
        within the tolerance of it), a copy of another shape, or a speck (`SPECK`).

        Args:
            pieces: Readings of the shapes, tight.
            share: Shapes of up to this part of the mask's area are none.

        Returns:
            Their indices; empty for a single shape, and all of more than `MAX_PIECES`.
        """
        if len(pieces) < 2:
            return []
        if len(pieces) > MAX_PIECES:
            return list(range(len(pieces)))
        free = set(range(len(self.parts)))
        fair: list[int] = []
        found = []
        least = max(share * self.window.area, min(SPECK, SPECK_SHARE * self.window.area))
        for i in sorted(range(len(pieces)), key=lambda i: pieces[i][0].area):
            piece = pieces[i]
            owned = ({p for p in free if 2 * common(self.parts[p], r) >= self.parts[p].area} for r in piece)
            own = next(filter(None, owned), set())
            free -= own
            if own or self._around_hole(piece) or any(iou(pieces[j][0], piece[0]) >= 0.8 for j in fair):
                fair.append(i)
            elif min(r.area for r in piece) > least:
                found.append(i)
        return sorted(found)

    def _around_hole(self, readings: Sequence[Window]) -> bool:
        for hole in self.holes:
            near = Noise(hole, self.tolerance).grown
            if any(4 * r.area >= hole.area and common(near, r) == r.area > 0 for r in readings):
                return True
        return False

    def filled_by(self, mask: Window) -> bool:
        """Whether a mask covers most of a hole of this one."""
        return any(2 * common(hole, mask) >= hole.area for hole in self.holes)


def touching(masks: Sequence[Window], shapes: Sequence[Sequence[Window]], margin: int = 1) -> Iterator[tuple[int, int]]:
    """Pairs (mask, shape) whose windows, or those of any reading, come within a margin of each other.

    Raises:
        ValueError: more than `MAX_PAIRS`.
    """
    if not masks:
        return
    left = np.array([w.x0 - margin for w in masks])
    upper = np.array([w.y0 - margin for w in masks])
    right = np.array([w.x0 + w.mask.shape[1] + margin for w in masks])
    lower = np.array([w.y0 + w.mask.shape[0] + margin for w in masks])
    total = 0
    for j, readings in enumerate(shapes):
        found = np.zeros(len(masks), bool)
        for r in readings:
            h, w = r.mask.shape
            if h:
                found |= (left < r.x0 + w) & (right > r.x0) & (upper < r.y0 + h) & (lower > r.y0)
        hits = np.flatnonzero(found)
        total += hits.size
        if total > MAX_PAIRS:
            raise ValueError(f"more than {MAX_PAIRS} pairs of a mask and a shape touch each other")
        for i in hits:
            yield int(i), j
