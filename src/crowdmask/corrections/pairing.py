"""Masks that were handed out and shapes that came back, and which of them are untouched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crowdmask.corrections.exchange.base import Shape
from crowdmask.corrections.likeness import MAX_PIECES, Difference, Noise, common, iou, key, touching, unite
from crowdmask.masks.rle import Window
from crowdmask.metrics.matching import assignment

INSIDE = 0.8
"""Least part of a fragment that lies on its mask."""
PIECE = 0.25
"""A shape with at least this part of a mask's area might be a head of its own."""


@dataclass(frozen=True)
class Known:
    """A mask that was handed out.

    Attributes:
        point_id: Of the head.
        point_xy: Of the head, pixels of the picture; may lie outside of the picture and of the mask.
        window: The mask, pixels of the picture.
    """

    point_id: int
    point_xy: tuple[float, float]
    window: Window


class Pairing:
    """The state of a match: what is free, and what was found untouched.

    Attributes:
        known: As given.
        shapes: As given.
        heads: Each mask with its noise, tight.
        readings: Of each shape, tight and cut to the picture.
        near: For each head the shapes whose windows touch its own, in order; `over` the other way round.
        owner: Head of each shape whose trusted id lies on that head's mask.
        stray: Head of each shape whose trusted id belongs to a mask that it does not touch.
        strict: Ids are trusted and most untouched masks kept theirs: a shape without one is new.
        free_heads: Heads without decision.
        free_shapes: Shapes without decision.
        kept: Untouched heads: their shapes, and how they differ.
        doubts: Ambiguous heads: their shapes, and why.
        outlines: Most shapes that lie on masks are outlines.
    """

    def __init__(
        self, known: Sequence[Known], shapes: Sequence[Shape], height: int, width: int, tolerance: float
    ) -> None:
        """Find what touches what, and whether ids can be trusted."""
        self.known, self.shapes, self.size = known, shapes, (height, width)
        self.windows = [one.window.within(0, 0, width, height).tight() for one in known]
        self.heads = [Noise(window, tolerance) for window in self.windows]
        self.readings = [tuple(r.within(0, 0, width, height).tight() for r in s.readings) for s in shapes]
        self.free_heads = {h for h, window in enumerate(self.windows) if window.mask.size}
        self.free_shapes = set(range(len(shapes)))
        self.kept: dict[int, tuple[list[int], str]] = {}
        self.doubts: dict[int, tuple[list[int], str]] = {}
        self.convention = 0
        self.near: list[list[int]] = [[] for _ in known]
        self.over: list[list[int]] = [[] for _ in shapes]
        order = sorted(self.free_heads)
        for place, shape in touching([self.windows[h] for h in order], self.readings, math.ceil(tolerance) + 1):
            self.near[order[place]].append(shape)
            self.over[shape].append(order[place])
        index = {one.point_id: h for h, one in enumerate(known)}
        if len(index) < len(known):
            raise ValueError("two masks have the same point_id")
        self._overlap: dict[tuple[int, int], float] = {}
        on_masks = [s for s in range(len(shapes)) if self.over[s]]
        self.outlines = 2 * sum(not shapes[s].exact for s in on_masks) > len(on_masks) or (
            not on_masks and not all(shape.exact for shape in shapes)
        )
        self._trust(index)

    def _trust(self, index: dict[int, int]) -> None:
        """Ids are trusted when most that were handed out here lie on their own mask more than on any other's."""
        carried = {
            s: index[i] for s, shape in enumerate(self.shapes) if (i := shape.point_id) is not None and i in index
        }
        own = 0
        for s, head in carried.items():
            mine = self.overlap(head, s) if head in self.over[s] else 0.0
            own += mine > 0 and all(self.overlap(h, s) <= mine for h in self.over[s])
        self.owner: dict[int, int] = {}
        self.stray: dict[int, int] = {}
        self.strict = False
        if 2 * own <= len(carried):
            return
        on_mask = {h for s, h in carried.items() if h in self.over[s] and self.overlap(h, s) > 0}
        for s, head in carried.items():
            (self.owner if head in on_mask else self.stray)[s] = head

    def overlap(self, head: int, shape: int) -> float:
        """IoU of a mask with the best reading of a shape."""
        if (head, shape) not in self._overlap:
            self._overlap[head, shape] = max(iou(self.windows[head], r) for r in self.readings[shape])
        return self._overlap[head, shape]

    def reading(self, shape: int) -> Window:
        """The shape's pixels by the convention that the untouched shapes of the picture follow."""
        readings = self.readings[shape]
        return readings[min(self.convention, len(readings) - 1)]

    def union(self, shapes: Sequence[int], old: Noise) -> Window:
        """The pixels of several shapes; of one whose other readings keep a hole of the old mask, such a reading."""
        new = unite([self.reading(s) for s in shapes])
        if len(shapes) == 1 and old.filled_by(new):
            holed = [r for r in self.readings[shapes[0]] if not old.filled_by(r) and iou(r, new) >= 0.5]
            new = holed[min(self.convention, len(holed) - 1)] if holed else new
        return new

    def in_picture(self, point_xy: tuple[float, float]) -> bool:
        """Whether a point lies on a pixel of the picture."""
        height, width = self.size
        return -0.5 <= point_xy[0] < width - 0.5 and -0.5 <= point_xy[1] < height - 0.5

    def holds(self, shape: int, head: int) -> bool:
        """Whether a shape has the pixel of a head's point."""
        point = self.known[head].point_xy
        if not self.in_picture(point):
            return False
        x, y = math.floor(point[0] + 0.5), math.floor(point[1] + 0.5)
        return bool(self.reading(shape).within(x, y, 1, 1).mask.any())

    def groups(self) -> dict[int, list[int]]:
        """Free shapes of each free head that a trusted id joins."""
        found: dict[int, list[int]] = {}
        for shape, head in self.owner.items():
            if shape in self.free_shapes and head in self.free_heads:
                found.setdefault(head, []).append(shape)
        return found

    def keep(self) -> None:
        """Find what is untouched, and the convention of the outlines."""
        self._keep_by_id()
        by_id = len(self.kept)
        self._keep_equal()
        self._keep_alike()
        self._keep_fragments()
        self.strict = bool(self.owner) and 2 * by_id >= len(self.kept)
        self._attach()
        self._choose_convention()

    def _fit(self, head: int, shapes: Sequence[int]) -> Difference | None:
        """How the union of shapes differs from a mask; None where by more than noise."""
        noise = self.heads[head]
        count = max(len(self.readings[s]) for s in shapes)
        unions = [unite([self.readings[s][min(k, len(self.readings[s]) - 1)] for s in shapes]) for k in range(count)]
        if all(self.shapes[s].exact for s in shapes):
            return (0, False) if key(unions[0]) == key(noise.window) else None
        return noise.best(unions)

    def foreign(self, head: int, shapes: Sequence[int], share: float = 0.0) -> list[int]:
        """Those of several shapes on a mask that might be heads of their own: see `Noise.foreign`."""
        return [shapes[i] for i in self.heads[head].foreign([self.readings[s] for s in shapes], share)]

    def _keep(self, head: int, shapes: Sequence[int], difference: Difference) -> None:
        pixels, hole = difference
        reason = f"differs by {pixels} px, within tracing noise" if pixels else ""
        if hole:
            reason = "; ".join(filter(None, [reason, "its hole is kept: an outline carries none"]))
        self.kept[head] = sorted(shapes), reason
        self.free_heads.discard(head)
        self.free_shapes.difference_update(shapes)

    def _doubt(self, head: int, shapes: Sequence[int], reason: str) -> None:
        self.doubts[head] = sorted(shapes), reason
        self.free_heads.discard(head)
        self.free_shapes.difference_update(shapes)

    def _keep_by_id(self) -> None:
        for head, group in self.groups().items():
            name = self.known[head].point_id
            whole = self._fit(head, group)
            if whole is not None:
                if self.foreign(head, group):
                    self._doubt(head, group, f"several shapes carry the id {name}: cut into heads, or one in parts")
                else:
                    self._keep(head, group, whole)
                continue
            inside = [s for s in group if self._inside(head, s)]
            if len(group) > 1 and any(some and self._fit(head, some) for some in (inside, *([s] for s in group))):
                if self.foreign(head, group, PIECE):
                    self._doubt(head, group, f"several shapes carry the id {name}: a copy for a new head, or a part")

    def _inside(self, head: int, shape: int) -> bool:
        """Whether most of a shape lies on a mask, holes included."""
        place = self.windows[head] if self.shapes[shape].exact else self.heads[head].grown
        return any(r.mask.size and common(r, place) >= INSIDE * r.area for r in self.readings[shape])

    def _lost(self) -> list[int]:
        """Free shapes without a trusted id on its mask."""
        return [s for s in sorted(self.free_shapes) if s not in self.owner]

    def _keep_equal(self) -> None:
        grouped = self.groups()
        same: dict[tuple, list[int]] = {}
        for head in sorted(self.free_heads - grouped.keys()):
            same.setdefault(key(self.windows[head]), []).append(head)
        found: dict[tuple[int, int], float] = {}
        for shape in self._lost():
            for k, reading in enumerate(self.readings[shape]):
                for head in same.get(key(reading), ()):
                    found.setdefault((head, shape), 1.0 - 0.01 * k)
        for heads in same.values():
            shapes = sorted({s for h, s in found if h in heads})
            if len(shapes) < len(heads) and shapes:
                for head in heads:
                    self._doubt(head, shapes, "several heads had this very mask, and fewer came back")
        pairs = [pair for pair in found if pair[0] in self.free_heads and pair[1] in self.free_shapes]
        for head, shape in assign({pair: found[pair] for pair in pairs}):
            self._keep(head, [shape], (0, False))

    def _keep_alike(self) -> None:
        grouped, lost = self.groups(), set(self._lost())
        found: dict[tuple[int, int], float] = {}
        fits: dict[tuple[int, int], Difference] = {}
        for head in sorted(self.free_heads - grouped.keys()):
            for shape in self.near[head]:
                if shape in lost and not self.shapes[shape].exact:
                    difference = self.heads[head].best(self.readings[shape])
                    if difference is not None:
                        fits[head, shape] = difference
                        # To the third: one good pair is worth more than two bad ones.
                        found[head, shape] = self.overlap(head, shape) ** 3
        for pair in assign(found):
            self._keep(pair[0], [pair[1]], fits[pair])

    def _keep_fragments(self) -> None:
        grouped, lost = self.groups(), set(self._lost())
        found = []
        for head in sorted(self.free_heads):
            own = grouped.get(head, [])
            group = own + [s for s in self.near[head] if s in lost and self._inside(head, s)]
            if len(group) < 2 or len(group) == len(own):
                continue
            difference = self._fit(head, group)
            if difference is not None:
                found.append((difference[0] / self.windows[head].area, head, group, difference))
        for _, head, group, difference in sorted(found, key=lambda one: one[:2]):
            if not self.free_shapes.issuperset(group):
                continue
            if not self.foreign(head, group):
                self._keep(head, group, difference)
            elif head not in grouped:
                self._doubt(head, group, "cut into several heads, or one head in several parts")

    def _attach(self) -> None:
        """Give untouched masks the outlines of their holes, and of fragments small enough to be missed until now."""
        for shape in self._lost():
            for head in self.over[shape]:
                if head not in self.kept or self.shapes[shape].exact or not self._inside(head, shape):
                    continue
                group = [*self.kept[head][0], shape]
                if len(group) > MAX_PIECES:
                    continue
                difference = self._fit(head, group)
                if difference is not None and shape not in self.foreign(head, group):
                    self._keep(head, group, difference)
                    break

    def _choose_convention(self) -> None:
        """New outlines are read as the untouched ones fit best: by the tool's own convention, or by the next."""
        wrong = [0, 0]
        for head, (shapes, _) in self.kept.items():
            readings = self.readings[shapes[0]]
            if len(shapes) == 1 and len(readings) > 1:
                old = self.windows[head]
                for k in (0, 1):
                    wrong[k] += old.area + readings[k].area - 2 * common(old, readings[k])
        self.convention = int(wrong[1] < wrong[0])


def assign(values: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """One-to-one pairs with the largest sum of values, in order.

    Args:
        values: Of the possible pairs, above 0.
    """
    pairs = sorted(values)
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return [pairs[k] for k in assignment(table[:, 0], table[:, 1], np.array([values[pair] for pair in pairs]))]
