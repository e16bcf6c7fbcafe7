"""Exclusion against painting on the whole frame, and what must hold for every image."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components

from crowdmask.config import Exclusion
from crowdmask.errors import DataError
from crowdmask.geometry import clip_points, neighbour_distances, own_pixels
from crowdmask.masks.exclusion import claim_pixels, exclude_image, mask_of, radii, rows, share_pixels
from crowdmask.masks.rle import Window, digest

TIES = ("nearest", "normalised", "small_first", "last")
EMPTY = Window(0, 0, np.zeros((0, 0), bool))


def claims_by_definition(points, height, width):
    """Lowest row of a pixel has it; the others, in row order, take the nearest that is left (upper, then left)."""
    pixels = [tuple(int(v) for v in p) for p in own_pixels(points, height, width)]
    taken, out = set(pixels), {}
    for i, pixel in enumerate(pixels):
        if pixel not in pixels[:i]:
            out[i] = pixel
    for i, (x, y) in enumerate(clip_points(points, height, width)):
        if i not in out:
            free = [(c, r) for r in range(height) for c in range(width) if (c, r) not in taken]
            out[i] = min(free, key=lambda p: ((p[0] - x) ** 2 + (p[1] - y) ** 2, p[1], p[0]))
            taken.add(out[i])
    return [out[i] for i in range(len(pixels))]


def painted(points, found, height, width, s):
    """Methods c.3 on full frames: list of (source, mask before the tie-break, mask after)."""
    inside = clip_points(points, height, width)
    count = len(inside)
    ys, xs = np.mgrid[:height, :width]
    radius = radii(points, height, width, s)
    claims = claims_by_definition(points, height, width)
    pixels = own_pixels(points, height, width)
    square = [(xs - x) ** 2 + (ys - y) ** 2 for x, y in inside]
    sources, masks = [], []
    for i in range(count):
        circle = square[i] <= radius[i] ** 2
        both = found[i].full(height, width) & (circle | (s.constraint == "none"))
        kept = np.zeros_like(both)
        if both.any():
            names, _ = components(both, np.ones((3, 3)))
            nearest = names[pixels[i, 1], pixels[i, 0]]
            if not nearest:
                at = np.unravel_index(np.argmin(np.where(both, square[i], np.inf)), both.shape)
                if square[i][at] <= (radius[i] / 4) ** 2:
                    nearest = names[at]
            kept = (names == nearest) & bool(nearest)
        if kept.sum() >= max(s.min_area_px, s.min_area_share * np.pi * radius[i] ** 2, 1):
            sources.append("sam")
        elif s.fallback == "pixel":
            sources.append("pixel")
            kept = (xs == pixels[i, 0]) & (ys == pixels[i, 1])
        else:
            sources.append("circle")
            kept = square[i] <= (radius[i] * (0.5 if s.fallback == "half" else 1)) ** 2
            kept[pixels[i, 1], pixels[i, 0]] |= not kept.any()
        masks.append(kept)
    before = [mask.copy() for mask in masks]
    for i in range(count):
        for j, (x, y) in enumerate(claims):
            before[i][y, x] = i == j
    if not s.disjoint:
        return sources, before, before
    area = [int(mask.sum()) for mask in before]
    owner = np.full((height, width), -1)
    for y in range(height):
        for x in range(width):
            here = [i for i in range(count) if before[i][y, x]]
            key = {
                "nearest": lambda i, y=y, x=x: (square[i][y, x], i),
                "normalised": lambda i, y=y, x=x: (square[i][y, x] / radius[i] ** 2, i),
                "small_first": lambda i: (area[i], i),
                "last": lambda i: -i,
            }[s.tie]
            if here:
                owner[y, x] = min(here, key=key)
    return sources, before, [owner == i for i in range(count)]


def scene_of(seed, tie=None):
    """Points (clusters, duplicates, outside, on halves) and arbitrary SAM masks in a small image, and settings."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(2, 23, 2).tolist()
    count = int(rng.integers(0, min(9, height * width) + 1))
    points = rng.uniform(-1, [width, height], (count, 2))
    if rng.random() < 0.5:
        points = np.round(points * 2) / 2
    if count and rng.random() < 0.5:
        points[: rng.integers(1, count + 1)] = points[0]
    if rng.random() < 0.3:
        points = points * 0.2
    ys, xs = np.mgrid[:height, :width]
    found = []
    for x, y in clip_points(points, height, width):
        kind = rng.integers(5)
        mask = rng.random((height, width)) < (0, 0.08, 0.5, 1, 0.05)[kind]
        if kind == 4:  # a blob beside the point, and specks
            dx, dy = rng.normal(0, 2, 2)
            mask |= (xs - x - dx) ** 2 + (ys - y - dy) ** 2 <= rng.uniform(1, 30)
        found.append(Window(0, 0, mask).tight())
    least = float(rng.choice([0.0, 0.5, 2.0, 5.0]))
    options = Exclusion(
        r_min=least,
        r_max=(None, least + 0.1, 9.0)[rng.integers(3)],
        lone_share=float(rng.choice([0.1, 0.5, 1.0])),
        constraint=("nnec", "nnec", "half", "none")[rng.integers(4)],
        fallback=("circle", "half", "pixel")[rng.integers(3)],
        min_area_px=int(rng.choice([0, 1, 4])),
        min_area_share=float(rng.choice([0.0, 0.02, 0.3])),
        tie=tie or TIES[rng.integers(4)],
        disjoint=bool(rng.random() < 0.75),
    )
    return points, found, height, width, options


@pytest.mark.parametrize("tie", TIES)
def test_masks_are_those_painted_on_the_whole_frame(tie):
    moved = 0
    for seed in range(80):
        _, _, height, width, s = scene = scene_of(seed, tie)
        sources, before, after = painted(*scene)
        made = exclude_image(*scene)
        assert len(made) == len(scene[0])
        for i, row in enumerate(made):
            full = Window.from_columns(row).full(height, width)
            np.testing.assert_array_equal(full, after[i], err_msg=f"seed {seed} point {i} {s}")
            shrunk = after[i].sum() == 1 and before[i].sum() > 1
            assert row["source"] == ("pixel" if shrunk else sources[i])
            assert row["lost_px"] == before[i].sum() - after[i].sum()
            moved += row["lost_px"]
    assert moved > 1000


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1).map(scene_of))
def test_what_holds_for_every_image(scene):
    points, _, height, width, s = scene
    made = exclude_image(*scene)
    claims = claim_pixels(points, height, width)
    assert [tuple(c) for c in claims.tolist()] == claims_by_definition(points, height, width)
    masks = [Window.from_columns(row) for row in made]
    full = np.array([window.full(height, width) for window in masks]).reshape(len(points), height, width)
    if s.disjoint:
        assert (full.sum(0) <= 1).all()
    ys, xs = np.mgrid[:height, :width]
    for i, (row, window, (px, py)) in enumerate(zip(made, masks, claims, strict=True)):
        x, y = clip_points(points, height, width)[i]
        assert full[:, py, px].sum() == 1 and full[i, py, px]  # nobody else has the claimed pixel
        assert row["area"] == window.area == full[i].sum() >= 1 and row["lost_px"] >= 0
        assert row["sha256"] == digest(window) == digest(Window(0, 0, full[i]))
        assert (row["w"], row["h"]) == window.tight().mask.shape[::-1]  # the window is the bounding box
        assert 0 <= row["x0"] and row["x0"] + row["w"] <= width and 0 <= row["y0"] and row["y0"] + row["h"] <= height
        outside = full[i] & ((xs - x) ** 2 + (ys - y) ** 2 > row["radius_px"] ** 2)
        allowed = {(px, py), tuple(own_pixels(points, height, width)[i].tolist())}
        assert s.constraint == "none" or {(int(c), int(r)) for r, c in np.argwhere(outside)} <= allowed


def test_the_order_of_points_does_not_matter_where_nothing_ties():
    rng = np.random.default_rng(4)
    points = rng.uniform(0, 60, (40, 2))
    order = rng.permutation(40)
    first = exclude_image(points, [EMPTY] * 40, 61, 61, Exclusion())
    again = exclude_image(points[order], [EMPTY] * 40, 61, 61, Exclusion())
    assert [first[i] for i in order] == again


def test_none_one_and_equal_points():
    assert exclude_image(np.zeros((0, 2)), [], 9, 9, Exclusion()) == []
    (lone,) = exclude_image(np.array([[20.0, 15.0]]), [EMPTY], 30, 40, Exclusion())
    assert lone["radius_px"] == 15 and lone["source"] == "circle" and lone["lost_px"] == 0
    twins = exclude_image(np.array([[20.0, 15.0]] * 3), [EMPTY] * 3, 30, 40, Exclusion(lone_share=0.2))
    assert [row["radius_px"] for row in twins] == [6, 6, 6]
    assert twins[0]["source"] == "circle" and [row["area"] for row in twins[1:]] == [1, 1]
    assert [row["source"] for row in twins[1:]] == ["pixel", "pixel"]


def test_all_points_on_one_pixel_each_get_a_pixel():
    claims = claim_pixels(np.array([[2.0, 1.0]] * 12), 3, 4)
    assert len({tuple(c) for c in claims.tolist()}) == 12
    assert claims[0].tolist() == [2, 1] and claims[1].tolist() == [2, 0]  # upper before left, right and lower
    with pytest.raises(ValueError, match="13 points cannot each have a pixel of 4 x 3"):
        claim_pixels(np.array([[2.0, 1.0]] * 13), 3, 4)
    start = time.perf_counter()
    many = claim_pixels(np.full((4000, 2), 100.25), 200, 220)
    assert len(np.unique(many, axis=0)) == 4000
    assert np.hypot(*(many - 100.25).T).max() < np.sqrt(4000 / np.pi) + 2  # a disc around the place
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("size", "settings_", "expected"),
    [
        ((768, 1024), {}, [5, 40, 200]),  # working size is the image: clamp as it is
        ((3072, 4096), {}, [10, 40, 400]),  # shown at half size: 5 working pixels are 10
        ((3072, 4096), {"max_side": 4096}, [5, 40, 200]),
        ((3072, 4096), {"r_min": 30.0, "r_max": 30.0}, [60, 60, 60]),
        ((768, 1024), {"r_min": 0.0, "r_max": None}, [2, 40, 700]),
        ((256, 342), {"min_side": 512}, [2.5, 40, 100]),  # shown at double size
        ((768, 1024), {"min_side": 512}, [5, 40, 200]),
        ((512, 4096), {"min_side": 512, "max_side": 2048}, [5, 40, 200]),  # the shorter side decides
    ],
)
def test_radii_are_clamped_in_working_pixels(size, settings_, expected):
    # Clipped to the image: distances 2, 2, 40 and, where there is room, 700.
    points = np.array([[0, 0], [2, 0], [42, 0], [742, 0.0]])[: 4 if size[1] > 742 else 3]
    found = radii(points, *size, Exclusion(**settings_))
    np.testing.assert_allclose(found, [expected[0], *expected][: len(points)])


def test_circles_of_half_the_distance_are_disjoint_and_clamped_alike():
    points = np.array([[10.0, 10.0], [40.0, 10.0], [40.0, 13.0], [300.0, 300.0]])
    s = Exclusion(constraint="half", r_min=0.0, r_max=100.0)
    np.testing.assert_allclose(radii(points, 400, 400, s)[:3], [15, 1.5, 1.5])
    assert radii(points, 400, 400, s)[3] == 100
    np.testing.assert_allclose(radii(points, 400, 400, Exclusion(constraint="half"))[:3], [15, 5, 5])
    assert radii(points[:1], 400, 300, s)[0] == 100  # a lone point has no distance to halve: 0.5 * 300, clamped
    made = exclude_image(points, [EMPTY] * 4, 400, 400, Exclusion(constraint="half", r_min=0.0, r_max=None))
    assert [row["lost_px"] for row in made] == [0, 0, 0, 0]


def test_without_constraint_the_component_of_the_point_stays_whole():
    point, s = np.array([30.0, 30.0]), Exclusion(constraint="none")
    found = Window(0, 0, disc(30, 30, 20) | disc(5, 5, 3))
    made, source = mask_of(point, 6.0, found, 60, 60, s)
    assert source == "sam"
    np.testing.assert_array_equal(made.full(60, 60), disc(30, 30, 20))
    within, _ = mask_of(point, 6.0, found, 60, 60, Exclusion())
    np.testing.assert_array_equal(within.full(60, 60), disc(30, 30, 6))
    # Too far from the point, or nothing at all: the circle.
    for nothing in (EMPTY, Window(0, 0, disc(5, 5, 3))):
        made, source = mask_of(point, 6.0, nothing, 60, 60, s)
        assert source == "circle"
        np.testing.assert_array_equal(made.full(60, 60), disc(30, 30, 6))


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.01, 5), (1.0, 60)])
def test_a_lone_point_has_a_share_of_the_shorter_side_clamped_alike(share, expected):
    assert radii(np.array([[3.0, 4.0]]), 100, 300, Exclusion(lone_share=share, r_max=60.0)).tolist() == [expected]


def test_a_point_outside_has_the_radius_of_its_place_at_the_border():
    points = np.array([[10.0, 10.0], [500.0, 10.0]])
    np.testing.assert_array_equal(radii(points, 40, 50, Exclusion()), neighbour_distances([[10, 10], [49, 10]]))


def test_fallback_is_the_circle_or_half_of_it_or_a_pixel():
    point = np.array([20.0, 20.0])
    whole, source = mask_of(point, 10.0, EMPTY, 41, 41, Exclusion())
    half, _ = mask_of(point, 10.0, EMPTY, 41, 41, Exclusion(fallback="half"))
    pixel, what = mask_of(point, 10.0, EMPTY, 41, 41, Exclusion(fallback="pixel"))
    assert what == "pixel" and pixel.full(41, 41).sum() == 1 and pixel.full(41, 41)[20, 20]
    assert source == "circle" and (whole.area, half.area) == (317, 81)  # lattice points in discs of 10 and 5
    assert whole.mask.shape == (21, 21) and half.mask.shape == (11, 11)


def disc(x, y, radius):
    ys, xs = np.mgrid[:60, :60]
    return (xs - x) ** 2 + (ys - y) ** 2 <= radius**2


@pytest.mark.parametrize(
    ("blobs", "kept"),
    [
        ([(30, 30, 4), (40, 30, 4)], 0),  # the point's own
        ([(36, 30, 3), (20, 30, 4)], 0),  # the nearest, 3 px away, within a quarter of 20
        ([(30, 40, 3)], None),  # nearest is 7 px away: too far
        ([(30, 30, 1)], 0),  # 5 pixels: large enough without a share
    ],
)
def test_the_component_of_the_point_or_the_nearest(blobs, kept):
    found = Window(0, 0, np.any([disc(*blob) for blob in blobs], axis=0))
    made, source = mask_of(np.array([30.0, 30.0]), 20.0, found, 60, 60, Exclusion(min_area_share=0.0))
    if kept is None:
        assert source == "circle"
    else:
        assert source == "sam"
        np.testing.assert_array_equal(made.full(60, 60), disc(*blobs[kept]))


@pytest.mark.parametrize(("least", "share", "source"), [(5, 0.0, "sam"), (6, 0.0, "circle"), (0, 0.02, "circle")])
def test_a_mask_of_five_pixels_against_the_smallest_area(least, share, source):
    s = Exclusion(min_area_px=least, min_area_share=share)
    assert mask_of(np.array([30.0, 30.0]), 20.0, Window(0, 0, disc(30, 30, 1)), 60, 60, s)[1] == source


def test_corners_touching_are_one_component():
    diagonal = Window(0, 0, np.eye(9, dtype=bool))
    made, source = mask_of(np.array([4.0, 4.0]), 8.0, diagonal, 9, 9, Exclusion(min_area_share=0.0))
    assert source == "sam" and made.area == 9


@pytest.mark.parametrize(
    ("tie", "owners"),
    [
        ("nearest", [0, 0, 1, 1]),  # the middle (20.5) and its two sides
        ("normalised", [0, 1, 1, 1]),  # radii 11 and 31: boundary at 10 + 21 * 11 / 42 = 15.5
        ("small_first", [0, 0, 0, 0]),  # the small circle has all of its own
        ("last", [1, 1, 1, 1]),
    ],
)
def test_who_gets_a_contested_pixel(tie, owners):
    points = np.array([[10.0, 30.0], [31.0, 30.0]])
    radius = np.array([11.0, 31.0])
    circles = [Window(0, 0, (np.mgrid[:61, :70][1] - x) ** 2 + (np.mgrid[:61, :70][0] - y) ** 2 <= r**2)
               for (x, y), r in zip(points, radius, strict=True)]  # fmt: skip
    shared = share_pixels(circles, points, radius, points.astype(int), tie)
    masks = [window.full(61, 70) for window in shared]
    assert not (masks[0] & masks[1]).any()
    np.testing.assert_array_equal(masks[0] | masks[1], circles[0].mask | circles[1].mask)
    row = [int(masks[1][30, x]) for x in (15, 20, 21, 21)]
    assert row == owners
    assert masks[0][30, 10] and masks[1][30, 31]  # own pixels whatever the rule


def test_equal_keys_go_to_the_lower_row():
    points = np.array([[10.0, 10.0], [20.0, 10.0]])
    everything = [Window(0, 0, np.ones((21, 31), bool))] * 2
    for tie in ("nearest", "normalised", "small_first"):
        masks = share_pixels(everything, points, np.array([9.0, 9.0]), points.astype(int), tie)
        assert masks[0].full(21, 31)[:, 15].all()


def test_twenty_thousand_points():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, [2999, 1999], (20_000, 2))
    points[:500] = points[500:1000]  # duplicates
    made = exclude_image(points, [EMPTY] * 20_000, 2000, 3000, Exclusion())
    count = np.zeros((2000, 3000), np.uint8)
    for row in made:
        window = Window.from_columns(row)
        count[window.y0 : window.y0 + row["h"], window.x0 : window.x0 + row["w"]] += window.mask
    assert len(made) == 20_000 and count.max() == 1


def test_rows_of_the_table():
    here = [{"x": 3.0, "y": 4.0}, {"x": 90.0, "y": -2.0}]
    image = {"split": "all", "image_id": "a", "height": 20, "width": 30, "points": here}
    key = {"split": "all", "image_id": "a", "score": 0.5}
    segments = [{**key, "point_id": i, **EMPTY.columns()} for i in range(2)]
    made = list(rows([image, {**image, "image_id": "b", "points": []}], segments, Exclusion()))
    assert [(row["point_id"], row["x"], row["y"], row["verified"]) for row in made] == [
        (0, 3.0, 4.0, False),
        (1, 90.0, -2.0, False),
    ]
    with pytest.raises(DataError, match="2 points but 1 SAM masks"):
        list(rows([image], segments[:1], Exclusion()))
