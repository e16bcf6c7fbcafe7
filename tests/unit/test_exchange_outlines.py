"""Masks that other programs trace come back from their outlines, pixel by pixel."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from exchange_cases import label_maps, picture_of, tricky
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from scipy import ndimage
from skimage import measure

from crowdmask.corrections.exchange import outlines
from crowdmask.corrections.exchange.budget import Budget

H, W = 24, 30


def by_cv2(mask: np.ndarray, mode: int, method: int, shift: float = 0) -> list[np.ndarray]:
    found, _ = cv2.findContours(mask.astype(np.uint8), mode, method)
    return [contour.reshape(-1, 2) + shift for contour in found]


def by_skimage(mask: np.ndarray, shift: float = 0, low: float = -math.inf) -> list[np.ndarray]:
    """Marching squares on the padded mask; datumaro cuts what is below 0."""
    return [
        np.maximum(line[:, ::-1] - 1, low) + shift for line in measure.find_contours(np.pad(mask, 1).astype(float), 0.5)
    ]


def by_edges(mask: np.ndarray) -> list[np.ndarray]:
    """Along the sides of pixels, (0, 0) being the corner of the first; of holes, too."""
    padded = np.pad(mask, 1)
    next_of: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in np.argwhere(mask):
        for (ax, ay), (bx, by), (ny, nx) in (
            ((0, 0), (1, 0), (0, 1)),
            ((1, 0), (1, 1), (1, 2)),
            ((1, 1), (0, 1), (2, 1)),
            ((0, 1), (0, 0), (1, 0)),
        ):
            if not padded[y + ny, x + nx]:
                next_of.setdefault((x + ax, y + ay), []).append((x + bx, y + by))
    rings = []
    while next_of:
        first = corner = next(iter(next_of))
        ring = []
        while not ring or corner != first:
            ring.append(corner)
            following = next_of[corner].pop()
            if not next_of[corner]:
                del next_of[corner]
            corner = following
        rings.append(np.array(ring, float))
    return rings


WITH_HOLES = {
    "cv2, all rings": lambda mask: by_cv2(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE),
    "cv2, all rings, all points": lambda mask: by_cv2(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE),
    "skimage": by_skimage,
    "skimage, half a pixel on": lambda mask: by_skimage(mask, 0.5),
    "skimage, cut at 0 as datumaro does": lambda mask: by_skimage(mask, 0, 0),
    "pixel edges": by_edges,
}
OUTER = {
    "cv2, outer rings": lambda mask: by_cv2(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE),
    "cv2, outer rings, all points": lambda mask: by_cv2(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE),
    "cv2, outer rings, half a pixel on": lambda mask: by_cv2(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, 0.5),
}
corners = pytest.mark.parametrize("corner", [True, False])


def gives(rings: list[np.ndarray], wanted: np.ndarray, corner: bool) -> bool:
    found = outlines.readings(rings, *wanted.shape, corner)
    for window in found:
        assert window.mask.dtype == bool and window.tight().mask.shape == window.mask.shape
    masks = [window.full(*wanted.shape) for window in found]
    assert not any(np.array_equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    return any(np.array_equal(mask, wanted) for mask in masks)


def filled(mask: np.ndarray) -> np.ndarray:
    """Outer rings of 8-connected parts go round background that is 4-connected."""
    return ndimage.binary_fill_holes(mask)


@corners
@pytest.mark.parametrize("tracer", WITH_HOLES.values(), ids=WITH_HOLES)
@pytest.mark.parametrize("key", tricky())
def test_the_awkward_masks_come_back_with_their_holes(tracer, key, corner):
    mask = tricky()[key]
    assert gives(tracer(mask), mask, corner)


@corners
@pytest.mark.parametrize("tracer", OUTER.values(), ids=OUTER)
@pytest.mark.parametrize("key", tricky())
def test_outer_rings_alone_give_the_mask_without_its_holes(tracer, key, corner):
    mask = tricky()[key]
    assert gives(tracer(mask), filled(mask), corner)


def random_masks():
    return label_maps().map(lambda labels: labels > 2).filter(np.any)


@settings(max_examples=80, deadline=None)
@given(random_masks(), st.booleans(), st.sampled_from([*WITH_HOLES]))
def test_any_mask_comes_back_from_rings_with_holes(mask, corner, tracer):
    assert gives(WITH_HOLES[tracer](mask), mask, corner)


@settings(max_examples=80, deadline=None)
@given(random_masks(), st.booleans(), st.sampled_from([*OUTER]))
def test_any_mask_comes_back_from_outer_rings_but_for_holes(mask, corner, tracer):
    assert gives(OUTER[tracer](mask), filled(mask), corner)


def mask_of(rings, corner: bool = True, reading: int = 0, size: tuple[int, int] = (H, W)) -> np.ndarray:
    return outlines.readings(rings, *size, corner)[reading].full(*size)


@corners
def test_the_own_convention_comes_first(corner):
    found = outlines.readings([[2, 3, 5, 3, 5, 6, 2, 6]], H, W, corner)
    areas = [window.area for window in found]
    assert areas[0] == (9 if corner else 16)
    assert sorted(areas)[0] == 9 and 16 in areas


@pytest.mark.parametrize(
    ("ring", "corner", "pixels"),
    [
        ([4, 7], False, [(4, 7)]),
        ([4, 7], True, [(4, 7)]),
        ([4.9, 7.9], True, [(4, 7)]),
        ([4.4, 6.6], False, [(4, 7)]),
        ([2, 5, 6, 5], False, [(x, 5) for x in range(2, 7)]),
        ([2, 5, 5, 8], False, [(2, 5), (3, 6), (4, 7), (5, 8)]),
        ([2, 5.3, 6, 5.3], False, [(x, 5) for x in range(2, 7)]),
        ([2, 5, 2, 5, 2, 5], False, [(2, 5)]),
        ([2, 5, 4, 5, 6, 5], False, [(x, 5) for x in range(2, 7)]),
        ([3.6, 3.6, 3.9, 3.6, 3.9, 3.9], False, [(4, 4)]),
        ([-5, 3, 2, 3], False, [(0, 3), (1, 3), (2, 3)]),
        ([-1e6, -1e6, 1e6, 1e6], False, [(i, i) for i in range(H)]),
    ],
)
def test_a_ring_without_inside_has_the_pixels_on_its_way(ring, corner, pixels):
    found = mask_of([ring], corner)
    assert sorted((int(x), int(y)) for y, x in np.argwhere(found)) == sorted(pixels)


@pytest.mark.parametrize("ring", [[-9, -9, -3, -9, -3, -3], [W + 5, 3], [W + 3, 3, W + 9, 5], [], [-4, 3, -2, 9]])
@corners
def test_what_lies_outside_gives_one_empty_reading(ring, corner):
    (window,) = outlines.readings([ring], H, W, corner)
    assert window.mask.shape == (0, 0)


def test_rings_unite_first_and_leave_holes_out_in_a_later_reading():
    outer, inner = [0, 0, 10, 0, 10, 10, 0, 10], [3, 3, 6, 3, 6, 6, 3, 6]
    found = [window.full(H, W) for window in outlines.readings([outer, inner], H, W, True)]
    assert found[0].sum() == 100
    ring = np.zeros((H, W), bool)
    ring[:10, :10] = True
    ring[3:6, 3:6] = False
    assert sum(np.array_equal(mask, ring) for mask in found) == 1


def test_overlapping_rings_unite_as_pycocotools_unites_them():
    rings = [[0, 0, 10, 0, 10, 10, 0, 10], [5, 5, 15, 5, 15, 15, 5, 15]]
    theirs = coco.decode(coco.merge(coco.frPyObjects(rings, H, W))).astype(bool)
    np.testing.assert_array_equal(mask_of(rings), theirs)


numbers = st.one_of(st.integers(-8, 40), st.floats(-8, 40))
some_rings = st.lists(
    st.lists(numbers, min_size=6, max_size=12).map(lambda r: r[: len(r) // 2 * 2]), min_size=1, max_size=3
)


@settings(max_examples=150, deadline=None)
@given(some_rings)
def test_one_reading_is_that_of_pycocotools(rings):
    theirs = coco.decode(coco.merge(coco.frPyObjects([[float(v) for v in r] for r in rings], H, W))).astype(bool)
    found = [window.full(H, W) for window in outlines.readings(rings, H, W, True)]
    assert not theirs.any() or any(np.array_equal(theirs, mask) for mask in found)


@settings(max_examples=150, deadline=None)
@given(some_rings, st.booleans())
def test_no_pixel_lies_outside_of_the_convex_hull_by_more_than_a_pixels_half_diagonal(rings, corner):
    part = np.array(rings[0], np.float64).reshape(-1, 2) - (0.5 if corner else 0)
    found = mask_of(rings[:1], corner)
    single = part.astype(np.float32)
    hull = single if np.ptp(single) == 0 else cv2.convexHull(single)
    hull = hull.reshape(-1, 1, 2)
    for y in range(H):
        for x in range(W):
            if found[y, x]:
                assert cv2.pointPolygonTest(hull, (float(x), float(y)), True) > -0.76


@pytest.mark.parametrize(
    ("rings", "words"),
    [
        ([np.zeros((100_001, 2))], "100000 points"),
        ([np.zeros((50_001, 2))] * 2, "100000 points"),
        ([np.zeros((1, 2))] * 1001, "1001 rings"),
        ([[0, 0, math.nan, 1, 2, 2]], "within 1000000 pixels"),
        ([[0, 0, math.inf, 1, 2, 2]], "within 1000000 pixels"),
        ([[0, 0, -1_000_001, 1, 2, 2]], "within 1000000 pixels"),
    ],
)
def test_hostile_rings_are_refused(rings, words):
    with pytest.raises(ValueError, match=words):
        outlines.readings(rings, H, W, True)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("1,2", "no list"),
        ([1, 2, 3], "an x lacks its y"),
        ([1, "2"], "no number"),
        ([True, 2], "no number"),
        ([[1, 2], [3]], "pairs"),
        ([[1, 2], 3, 4], "pairs"),
        ([1, 10**400], "within"),
        ([0] * 200_002, "100000 points"),
    ],
)
def test_what_is_no_ring_is_refused(value, words):
    with pytest.raises(ValueError, match=words):
        outlines.ring(value)


def test_both_ways_to_write_a_ring_are_read():
    np.testing.assert_array_equal(outlines.ring([1, 2.5, 3, 4]), outlines.ring([[1, 2.5], [3, 4]]))


def test_costs_are_charged_before_they_arise():
    side = 16_000
    big = [0, 0, side, 0, side, side, 0, side]
    with pytest.raises(ValueError, match="67108864 pixels"):
        outlines.readings([big], side, side, True)
    zigzag = np.stack([np.arange(100_000) / 100, np.arange(100_000) % 2 * 6000.0], axis=1)
    with pytest.raises(ValueError, match="too costly"):
        outlines.readings([zigzag], side, side, True)


def test_a_budget_is_for_all_shapes_and_its_memory_for_one_picture():
    square = [0, 0, 10, 0, 10, 10, 0, 10]
    kept = sum(window.mask.size for window in outlines.readings([square], H, W, True))
    budget = Budget(kept=kept)
    for _ in range(2):
        budget.new_picture()
        outlines.readings([square], H, W, True, budget)
    with pytest.raises(ValueError, match="too many pixels"):
        outlines.readings([square], H, W, True, budget)
    budget = Budget(work=10_000)
    with pytest.raises(ValueError, match="too costly"):
        for _ in range(10):
            outlines.readings([square], H, W, True, budget)


def test_a_drawing_by_hand():
    wanted = picture_of("""
        .......
        .###...
        .####..
        .#####.
        .......
    """)
    np.testing.assert_array_equal(mask_of([[1, 1, 3, 1, 5, 3, 1, 3]], False, 0, wanted.shape), wanted)
