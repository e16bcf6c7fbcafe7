"""Matching of pictures full of masks: nothing touched, so many edited, and all of it re-traced."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from retrace import TRACERS, exact, retrace

from crowdmask.corrections.exchange.base import Shape
from crowdmask.corrections.likeness import Noise, inner_point, iou
from crowdmask.corrections.matching import Known, match
from crowdmask.masks.rle import Window

CELL = 40
IDS = ("kept", "lost", "rotated", "foreign")


def blob(rng: np.random.Generator, radius: float, size: int = CELL) -> np.ndarray:
    """A lobed disc, cut by a line or freckled with holes now and then; around the middle of (size, size)."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2 - rng.uniform(-0.5, 0.5, (2, 1, 1))
    angle = np.arctan2(y, x)
    lobes = 1 + 0.2 * np.sin(rng.integers(1, 4) * angle + rng.uniform(0, 6)) + 0.1 * np.sin(5 * angle)
    mask = np.hypot(x, y) <= radius * lobes
    if rng.random() < 0.4:
        mask &= rng.uniform(-1, 1) * x + rng.uniform(-1, 1) * y < radius * rng.uniform(0.2, 0.8)
    if rng.random() < 0.2:
        mask &= rng.random(mask.shape) > 0.02
    mask[size // 2, size // 2] = True
    return mask


def crowd(rng: np.random.Generator, count: int, least: float = 0.5, most: float = 12) -> tuple[list[Known], int, int]:
    """Masks in the cells of a grid, some of them touching the picture's border, with ids in no order."""
    columns = max(1, round(count**0.5))
    rows = -(-count // columns)
    height, width = rows * CELL, columns * CELL
    names = rng.permutation(3 * count)[:count]
    heads = []
    for i, name in enumerate(names):
        mask = blob(rng, float(rng.uniform(least, most)))
        x0, y0 = CELL * (i % columns), CELL * (i // columns)
        window = Window(x0, y0, mask).tight()
        if rng.random() < 0.3:
            y0 -= window.y0 if i < columns else 0
            x0 -= window.x0 if i % columns == 0 else 0
        window = Window(x0, y0, mask).within(0, 0, width, height).tight()
        heads.append(Known(int(name), inner_point(window), window))
    return heads, height, width


def names_of(ids: str, heads: list[Known]) -> list[int | None]:
    """Ids that come back: the right ones, none, each that of the next head, or those of no head."""
    right = [head.point_id for head in heads]
    return {"kept": right, "lost": [None] * len(heads), "rotated": [*right[1:], right[0]]}.get(
        ids, list(range(4 * len(heads), 5 * len(heads)))
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from(IDS))
def test_bitmaps_in_any_order_are_kept(seed, count, ids):
    rng = np.random.default_rng(seed)
    heads, height, width = crowd(rng, count)
    names = names_of(ids, heads)
    shapes = [exact(heads[i].window, f"s{i}", point_id=names[i]) for i in rng.permutation(count)]
    decisions = match(heads, shapes, height, width)
    assert [(one.kind, one.point_id, one.where) for one in decisions] == [
        ("kept", head.point_id, (f"s{i}",)) for i, head in enumerate(heads)
    ]


def edit(rng: np.random.Generator, head: Known, height: int, width: int) -> Window:
    """The mask moved, or grown, by 3 pixels or more; moved only as far as it can be recognised without its id."""
    by = int(rng.integers(3, 5))
    old = head.window
    if rng.random() < 0.5:
        dx, dy = [(by, 0), (-by, 0), (0, by), (0, -by)][rng.integers(4)]
        moved = Window(old.x0 + dx, old.y0 + dy, old.mask).within(0, 0, width, height).tight()
        if iou(old, moved) >= 0.45:
            return moved
    place = old.x0 - by, old.y0 - by, old.mask.shape[1] + 2 * by, old.mask.shape[0] + 2 * by
    grown = cv2.dilate(old.cut(*place).astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)) > 0
    return Window(place[0], place[1], grown).within(0, 0, width, height).tight()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(8, 30),
    st.integers(0, 5),
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from(IDS),
    st.sampled_from(["bitmap", *TRACERS]),
)
@example(3456518, 20, 0, 0, 3, "kept", "cv2")  # a corner is cut by more than a pixel
def test_so_many_edits_are_found(seed, count, edited, deleted, added, ids, tool):
    rng = np.random.default_rng(seed)
    cells, height, width = crowd(rng, count + added, least=6, most=12)
    order = rng.permutation(count + added)
    new = {int(i) for i in order[:added]}
    heads = [one for i, one in enumerate(cells) if i not in new]
    gone = {cells[i].point_id for i in order[added : added + deleted]}
    changed = {cells[i].point_id: edit(rng, cells[i], height, width) for i in order[added + deleted :][:edited]}
    shapes: list[Shape] = []
    names = names_of(ids, cells)
    for i in rng.permutation(count + added):
        one = cells[i]
        if one.point_id in gone:
            continue
        name = None if i in new else names[i]
        window = changed.get(one.point_id, one.window)
        if tool == "bitmap":
            shapes.append(exact(window, f"s{i}", point_id=name))
        else:
            shapes += retrace(window, height, width, TRACERS[tool], where=f"s{i}", point_id=name)
    decisions = match(heads, shapes, height, width)
    assert Counter(one.kind for one in decisions) == Counter(
        kept=count - edited - deleted, replaced=edited, deleted=deleted, added=added
    )
    assert {one.point_id for one in decisions if one.kind == "replaced"} == set(changed)
    assert {one.point_id for one in decisions if one.kind == "deleted"} == gone
    for one in decisions:
        if tool == "bitmap" and one.kind == "replaced":
            want = changed[one.point_id]
            assert np.array_equal(one.window.full(height, width), want.full(height, width))


@settings(deadline=None, max_examples=100)
@example(16160824, 29, "kept", "cv2, chains", False)  # 7 of 21 pixels are left of a mask
@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from(IDS), st.sampled_from(list(TRACERS)), st.booleans())
def test_tracing_alone_is_no_edit(seed, count, ids, tool, split):
    rng = np.random.default_rng(seed)
    heads, height, width = crowd(rng, count)
    shapes: list[Shape] = []
    names, lost = names_of(ids, heads), set()
    for i in rng.permutation(count):
        found = retrace(heads[i].window, height, width, TRACERS[tool], split=split, where=f"s{i}", point_id=names[i])
        shapes += found
        lost |= set() if found else {heads[i].point_id}
    decisions = match(heads, shapes, height, width)
    assert [one.point_id for one in decisions] == [head.point_id for head in heads]
    for head, one in zip(heads, decisions, strict=True):
        # Only what a polygon of a tool cannot hold is lost: up to some 20 pixels.
        assert one.kind == ("ambiguous" if head.point_id in lost else "kept"), one
        assert head.point_id not in lost or head.window.area < 25


@pytest.mark.parametrize("ids", ["kept", "lost"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("tool", TRACERS)
def test_every_size_and_form_survives_tracing(tool, split, ids):
    """Discs of radius 0 to 30, rings, two fragments, on the border: kept, or ambiguous where too thin."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:80, :80] - 40
    forms = [np.hypot(x, y) <= radius for radius in (*np.arange(0, 6, 0.5), 7, 9, 12, 16, 22, 30)]
    forms += [blob(rng, radius, 80) for radius in range(1, 31)]
    forms += [(np.hypot(x, y) <= r) & (np.hypot(x, y) > inner) for r, inner in ((3, 1), (5, 2), (9, 4), (20, 15))]
    forms += [(np.hypot(x, y) <= 6) | (np.hypot(x - 12, y - 3) <= r) for r in (0, 1, 2, 5)]
    forms += [(abs(x) <= w) & (abs(y) <= h) for w, h in ((1, 1), (0, 5), (1, 8), (2, 2), (30, 0))]
    kept = 0
    for number, form in enumerate(forms):
        for left, top in ((0, 0), (40, 17)):  # whole, and cut by the picture's border
            window = Window(0, 0, form).within(left, top, 80 - left, 80 - top).tight()
            window = Window(window.x0 - left, window.y0 - top, window.mask)
            size = 80 - top, 80 - left
            # A large neighbour, so that the picture does not come back empty
            there = Window(size[1] - 3, 0, np.ones((size[0], 3), bool))
            heads = [Known(4, (40.0 - left, 40.0 - top), window), Known(9, (79.0 - left, 20), there)]
            name = 4 if ids == "kept" else None
            shapes = retrace(window, *size, TRACERS[tool], split=split, point_id=name)
            other = retrace(there, *size, TRACERS[tool], where="there", point_id=9 if ids == "kept" else None)
            decisions = match(heads, [*shapes, *other], *size)
            assert [one.kind for one in decisions] == ["kept" if shapes else "ambiguous", "kept"], (number, left)
            assert shapes or window.area < 25 or min(window.mask.shape) <= 2
            kept += bool(shapes)
    assert kept > len(forms)


def test_chains_of_ragged_masks_are_known_and_nothing_else_is():
    """Teh-Chin chains cut off claws and fill bays by more than the tolerance; edits are found all the same."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:100, :100] - 50
    beyond = 0
    for _ in range(60):
        wavy = cv2.GaussianBlur(rng.normal(size=(100, 100)), (0, 0), 2.0)
        _, labels = cv2.connectedComponents((np.hypot(x, y) + 6 * wavy / wavy.std() <= 28).astype(np.uint8))
        window = Window(4, 7, labels == labels[50, 50]).tight()
        noise, without = Noise(window, 1.0), Noise(window, 1.0)
        vars(without)["chains"] = frozenset()
        (shape,) = retrace(window, 120, 120, TRACERS["cv2, chains"])
        assert noise.best(shape.readings) is not None
        beyond += without.best(shape.readings) is None
        bitten = window.mask.copy()
        bitten[: bitten.shape[0] // 2, : bitten.shape[1] // 3] = False
        for edited in (Window(window.x0 + 3, window.y0, window.mask), Window(window.x0, window.y0, bitten).tight()):
            assert noise.best([edited]) is None
            (other, *_) = retrace(edited, 120, 120, TRACERS["cv2, chains"])
            assert noise.best(other.readings) is None
    assert beyond > 15
