"""Which of the shapes that came back is which mask that was handed out, and what the person did to it.

`match` is about one picture and pure. It never guesses: what has two plausible readings is `ambiguous` and changes
nothing. The steps work on what the steps before have left (our choices throughout):

1. ids, where the picture's ids can be trusted: each shape whose id lies on that id's mask;
2. shapes without id, or with a lost one: equal pixels, then within tracing noise, then fragments of one mask;
3. masks with a trusted id that are none of this have been redrawn;
4. the rest: the one shape that holds the point of the one head, then the clearly best overlap;
5. what is left over: shapes are new heads, heads are deleted, unless that is not the only reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from crowdmask.corrections import pairing
from crowdmask.corrections.exchange.base import Shape
from crowdmask.corrections.likeness import EMPTY, Noise, common, components, inner_point, iou, key, losable
from crowdmask.corrections.pairing import Known, Pairing

COPY_IOU = 0.8
"""A shape this like a mask that has its shape already is a copy of it."""
NEW_IOU = 0.1
"""Shapes without id, and missing heads, with at least this overlap might belong together."""
REDRAWN_IOU = 0.3
"""Least overlap of a redrawn mask with the old one, where there is no id to tell."""
CRUMB = 9
"""Largest shape without id that is a part of the redrawn mask that it touches, pixels, and"""
CRUMB_SHARE = 0.05
"""its largest part of the old mask's area: tracers take pixels that touch by a corner for shapes of their own."""
MANY = 20
"""Heads of a picture from which on it is no deletion when most masks are missing."""

Kind = Literal["kept", "replaced", "added", "deleted", "ambiguous"]


@dataclass(frozen=True)
class Decision:
    """What became of a head, or what a shape is.

    Attributes:
        kind: `kept`: the mask as handed out; `ambiguous`: changes nothing, a person has to look.
        point_id: The head; None for an added one, and for an ambiguous shape that is about no head in particular.
        window: The new mask, tight, for `replaced` and `added`; else None.
        iou: Overlap of the old with the new mask, for `replaced`; else None.
        reason: Empty where it is plain.
        where: The shapes that it is about, in file order.
        point_xy: Of an added head: as the file says it, else the pixel farthest from the mask's border.
    """

    kind: Kind
    point_id: int | None
    window: pairing.Window | None = None
    iou: float | None = None
    reason: str = ""
    where: tuple[str, ...] = ()
    point_xy: tuple[float, float] | None = None


def match(
    known: Sequence[Known], shapes: Sequence[Shape], height: int, width: int, tolerance: float = 1.0
) -> list[Decision]:
    """What a person did to the masks of one picture.

    Args:
        known: Masks as handed out, with different ids. One without a pixel in the picture is `kept`.
        shapes: What came back.
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        tolerance: How far re-tracing an outline moves a border, pixels; 0 = an outline is untouched only with equal
            pixels. What cannot be told from noise is said in `likeness.Noise.difference`.

    Returns:
        One decision for each mask, in order, then the added heads and the ambiguous shapes that no head's decision
        names, in file order. Every shape is in at least one decision.

    Raises:
        ValueError: two masks have the same id, or more than `likeness.MAX_PAIRS` masks and shapes touch each other.
    """
    work = _Work(Pairing(known, shapes, height, width, tolerance), {}, {}, {})
    pairs = work.pairs
    pairs.keep()
    work.kept()
    if not any(reading.mask.size for readings in pairs.readings for reading in readings):
        for head in sorted(pairs.free_heads):
            work.doubt(head, (), "the picture came back empty")
    else:
        work.redrawn_by_id()
        work.redrawn_by_point()
        work.redrawn_by_overlap()
        work.parts_of_redrawn()
        work.strayed()
    work.left_shapes()
    work.left_heads()
    return work.decisions()


@dataclass
class _Work:
    """Decisions in the making.

    Attributes:
        pairs: Heads and shapes, what is untouched, and which are still free.
        done: Decision of each head by its index.
        more: Decision of shapes that belong to no head, by index of the shape.
        used: Shapes of each decided head.
    """

    pairs: Pairing
    done: dict[int, Decision]
    more: dict[int, Decision]
    used: dict[int, list[int]]

    def decisions(self) -> list[Decision]:
        """All, heads first."""
        named = {s for shapes in self.used.values() for s in shapes}
        heads = [self.done[head] for head in range(len(self.pairs.known))]
        return heads + [self.more[s] for s in sorted(self.more.keys() - named)]

    def _close(self, kind: Kind, head: int, shapes: Sequence[int], reason: str, **more) -> None:
        pairs = self.pairs
        pairs.free_heads.discard(head)
        pairs.free_shapes.difference_update(shapes)
        self.used[head] = sorted(shapes)
        where = tuple(pairs.shapes[s].where for s in self.used[head])
        self.done[head] = Decision(kind, pairs.known[head].point_id, reason=reason, where=where, **more)

    def doubt(self, head: int, shapes: Sequence[int], reason: str) -> None:
        """The head is ambiguous, and so are these shapes."""
        self._close("ambiguous", head, shapes, reason)

    def doubt_shape(self, shape: int, reason: str, name: int | None = None) -> None:
        """The shape is ambiguous, without a head, or beside one that has its decision."""
        self.pairs.free_shapes.discard(shape)
        self.more[shape] = Decision("ambiguous", name, reason=reason, where=(self.pairs.shapes[shape].where,))

    def redraw(self, head: int, shapes: Sequence[int], reason: str = "") -> None:
        """The head has a new mask."""
        pairs = self.pairs
        old, new = pairs.heads[head].window, pairs.union(shapes, pairs.heads[head])
        if not new.mask.size:
            self.doubt(head, shapes, "its shape came back without a pixel")
            return
        outlines = not all(pairs.shapes[s].exact for s in shapes)
        if outlines and pairs.heads[head].filled_by(new):
            reason = "; ".join(filter(None, [reason, "an outline carries no hole: the old one's is filled"]))
        self._close("replaced", head, shapes, reason, window=new, iou=iou(old, new))

    def kept(self) -> None:
        """Turn what is untouched into decisions."""
        pairs = self.pairs
        for head, window in enumerate(pairs.windows):
            if not window.mask.size:
                self._close("kept", head, (), "it has no pixel in this picture")
        for head, (shapes, reason) in pairs.kept.items():
            self._close("kept", head, shapes, reason)
        for head, (shapes, reason) in pairs.doubts.items():
            self.doubt(head, shapes, reason)

    def redrawn_by_id(self) -> None:
        """Heads with a trusted id on their mask."""
        for head, group in self.pairs.groups().items():
            if self.pairs.foreign(head, group, pairing.PIECE):
                reason = f"several shapes carry the id {self.pairs.known[head].point_id}: a new head, or a part of it"
                self.doubt(head, group, reason)
            else:
                self.redraw(head, group)

    def _open(self) -> tuple[list[int], list[int]]:
        """Heads and shapes that no id joins."""
        pairs = self.pairs
        taken = set(pairs.stray.values()) if pairs.strict else set()
        heads = [h for h in sorted(pairs.free_heads) if h not in taken]
        return heads, [s for s in sorted(pairs.free_shapes) if s not in pairs.stray]

    def redrawn_by_point(self) -> None:
        """Shapes that hold the point of exactly one missing head, which no other of them holds."""
        pairs = self.pairs
        heads, shapes = self._open()
        holders: dict[int, list[int]] = {head: [] for head in heads}
        held: dict[int, list[int]] = {shape: [] for shape in shapes}
        for head in heads:
            for shape in pairs.near[head]:
                if shape in held and pairs.holds(shape, head):
                    holders[head].append(shape)
                    held[shape].append(head)
        for head in heads:
            if len(holders[head]) == 1 and held[holders[head][0]] == [head]:
                shape = holders[head][0]
                likeness = iou(pairs.heads[head].window, pairs.reading(shape))
                if likeness >= REDRAWN_IOU or (likeness > 0 and not pairs.strict):
                    self.redraw(head, [shape])

    def redrawn_by_overlap(self) -> None:
        """Shapes with the clearly best overlap; what overlaps without being clear is ambiguous."""
        pairs = self.pairs
        heads, shapes = self._open()
        left = set(shapes)
        found = {}
        for head in heads:
            for shape in pairs.near[head]:
                if shape in left and (value := iou(pairs.heads[head].window, pairs.reading(shape))) >= 0.01:
                    found[head, shape] = value
        clear = not pairs.strict
        while clear:
            clear = False
            best_of_head, best_of_shape = _two_best(found, 0), _two_best(found, 1)
            for (head, shape), value in sorted(found.items()):
                first = best_of_head[head][0] == value == best_of_shape[shape][0]
                if first and value >= max(REDRAWN_IOU, 2 * best_of_head[head][1], 2 * best_of_shape[shape][1]):
                    self.redraw(head, [shape])
                    clear = True
            found = {(h, s): v for (h, s), v in found.items() if h in pairs.free_heads and s in pairs.free_shapes}
        least = REDRAWN_IOU if pairs.strict else NEW_IOU
        for head in heads:
            group = [s for s in pairs.near[head] if found.get((head, s), 0) >= least]
            if group and head in pairs.free_heads:
                self._close(
                    "ambiguous", head, group, "redrawn, or deleted beside a new head: the overlap does not tell"
                )

    def parts_of_redrawn(self) -> None:
        """Shapes mostly inside of the old mask of a head whose other part was found by its looks, or of its new one."""
        pairs = self.pairs
        if pairs.strict:
            return
        for head in [h for h, one in self.done.items() if one.kind == "replaced"]:
            old, own = pairs.heads[head], self.used[head]
            new = self.done[head].window or EMPTY
            reach = Noise(new, 1.0).grown
            lacking = [part for part in old.parts if 2 * common(part, new) < part.area]
            parts, unsure = [], False
            for s in pairs.near[head]:
                window = pairs.reading(s)
                if s in pairs.free_shapes and s not in pairs.stray and window.mask.size:
                    ring = not pairs.shapes[s].exact and common(window, new) >= pairing.INSIDE * window.area
                    crumb = window.area <= min(CRUMB, CRUMB_SHARE * old.window.area) and common(window, reach)
                    if ring or crumb or 2 * common(window, old.window) >= window.area:
                        parts.append(s)
                        continue
                    # A part of the old mask that the new one lacks, redrawn or moved.
                    likeness = max((iou(part, window) for part in lacking), default=0.0)
                    if likeness >= NEW_IOU or any(2 * common(part, window) >= part.area for part in lacking):
                        parts.append(s)
                        unsure |= likeness < REDRAWN_IOU and window.area > pairing.PIECE * old.window.area
            if not parts:
                continue
            group = sorted([*own, *parts])
            if unsure or pairs.foreign(head, group, pairing.PIECE):
                self.doubt(head, group, "cut into several heads, or one head in several parts")
            else:
                self.redraw(head, group)

    def strayed(self) -> None:
        """Shapes whose trusted id belongs to a mask that they do not touch."""
        pairs = self.pairs
        claims: dict[int, list[int]] = {}
        for shape, head in pairs.stray.items():
            if shape in pairs.free_shapes:
                claims.setdefault(head, []).append(shape)
        for head, group in claims.items():
            name = pairs.known[head].point_id
            if head not in pairs.free_heads:
                for shape in group:
                    self.doubt_shape(shape, f"carries the id {name}, whose mask came back elsewhere: a copy?", name)
                continue
            rivals = [s for s in pairs.near[head] if s in pairs.free_shapes and s not in group]
            rivals = [s for s in rivals if common(pairs.reading(s), pairs.heads[head].window)]
            others = [h for s in group for h in pairs.over[s] if h in pairs.free_heads and h != head]
            others = [h for h in others if any(common(pairs.reading(s), pairs.heads[h].window) for s in group)]
            if len(group) == 1 and not rivals and not others:
                self.redraw(head, group, "moved")
            else:
                self.doubt(head, [*group, *rivals], f"its id {name} moved away, and other shapes or heads are near")

    def left_shapes(self) -> None:
        """New heads, unless they are copies."""
        pairs = self.pairs
        new: dict[tuple, int] = {}
        for shape in sorted(pairs.free_shapes):
            window = pairs.reading(shape)
            if not window.mask.size:
                self.doubt_shape(shape, "the shape has no pixel in the picture")
                continue
            copied = [h for h in pairs.over[shape] if h in self.done and self._copy(window, h)]
            if copied:
                name = pairs.known[copied[0]].point_id
                self.doubt_shape(shape, f"a second copy of point {name}", name)
            elif key(window) in new:
                self.doubt_shape(shape, f"a second copy of {pairs.shapes[new[key(window)]].where}")
            else:
                new[key(window)] = shape
        for shape in new.values():
            window, said = pairs.reading(shape), pairs.shapes[shape]
            pairs.free_shapes.discard(shape)
            inside = said.point_xy is not None and pairs.in_picture(said.point_xy)
            point = said.point_xy if inside else inner_point(window)
            self.more[shape] = Decision("added", None, window, where=(said.where,), point_xy=point)

    def _copy(self, window: pairing.Window, head: int) -> bool:
        old, new = self.pairs.heads[head].window, self.done[head].window
        return max(iou(window, old), iou(window, new or EMPTY)) >= COPY_IOU

    def left_heads(self) -> None:
        """Deleted, unless a tool may have lost them."""
        pairs = self.pairs
        doubtful = {s for s, one in self.more.items() if one.kind == "ambiguous"}
        doubtful |= {s for head, shapes in self.used.items() if self.done[head].kind == "ambiguous" for s in shapes}
        missing = sorted(pairs.free_heads)
        strays: dict[int, list[int]] = {}
        for shape in sorted(doubtful & pairs.stray.keys()):
            strays.setdefault(pairs.stray[shape], []).append(shape)
        many = len(pairs.known) >= MANY and 2 * len(missing) > len(pairs.known)
        for head in missing:
            window = pairs.heads[head].window
            near = [s for s in pairs.near[head] if s in doubtful and common(pairs.reading(s), window)]
            lost = strays.get(head, [])
            if near or lost:
                why = "an ambiguous shape lies on it" if near else "its shape came back without a pixel"
                self.doubt(head, near or lost, why)
            elif pairs.outlines and all(losable(part) for part in components(window.mask, 8)):
                self.doubt(head, (), "too small for an outline: the tool may have lost it")
            elif many:
                self.doubt(head, (), "most masks are missing")
            else:
                self._close("deleted", head, (), "")


def _two_best(found: dict[tuple[int, int], float], side: int) -> dict[int, tuple[float, float]]:
    """The two largest values of each head (side 0) or shape (side 1)."""
    best: dict[int, tuple[float, float]] = {}
    for pair, value in found.items():
        first, second = best.get(pair[side], (0.0, 0.0))
        best[pair[side]] = (value, first) if value > first else (first, max(second, value))
    return best
