"""Tiles: each point has one owner that shows it, the deepest one, at the zoom that its surroundings ask for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask.config import Tiles
from crowdmask.geometry import clip_points, local_spacing, neighbour_distances, own_pixels
from crowdmask.masks.segment import window_reach
from crowdmask.masks.tiles import plan, zoom_levels

MODES = ("none", "fixed", "auto")


@st.composite
def scenes(draw):
    """Points of an image (clustered, on halves, at the borders, duplicates) and tile settings."""
    height, width = draw(st.integers(1, 900)), draw(st.integers(1, 900))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 60))
    points = rng.uniform(-2, 1.02, (count, 2)).clip(-0.02) * [width, height]
    if draw(st.booleans()):  # a crowd in a corner
        points = points * 0.1
    if draw(st.booleans()):
        points = np.round(points * 2) / 2
    if count and draw(st.booleans()):
        points[: count // 3] = points[0]
    tiles = Tiles(
        mode=draw(st.sampled_from(MODES)),
        side=draw(st.integers(32, 600)),
        overlap=draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75])),
        target_px=draw(st.sampled_from([8.0, 32.0, 100.0])),
        max_zoom=draw(st.sampled_from([1.0, 1.5, 3.5, 4.0, 16.0])),
        across=draw(st.sampled_from([1.0, 4.0, 7.0])),
    )
    return points, height, width, draw(st.sampled_from([256, 1024])), tiles


def planned(points, height, width, frame, tiles):
    return plan(points, neighbour_distances(clip_points(points, height, width)), height, width, frame, tiles)


@settings(deadline=None, max_examples=200)
@given(scenes())
def test_each_point_is_owned_once_by_a_tile_that_shows_its_pixel(scene):
    points, height, width, frame, _ = scene
    made = planned(*scene)
    owned = np.concatenate([tile.owned for tile in made]) if made else np.zeros(0, int)
    np.testing.assert_array_equal(np.sort(owned), np.arange(len(points)))
    pixels = own_pixels(points, height, width)
    clipped = clip_points(points, height, width)
    for tile in made:
        assert len(tile.owned) and tile.w >= 1 and tile.h >= 1
        assert tile.x0 >= 0 and tile.y0 >= 0 and tile.x0 + tile.w <= width and tile.y0 + tile.h <= height
        inside = pixels[tile.owned] - [tile.x0, tile.y0]
        assert (inside >= 0).all() and (inside < [tile.w, tile.h]).all()
        # ... and by the test with which the segment stage collects the points that a tile shows.
        corner = clipped[tile.owned] - [tile.x0, tile.y0]
        assert (corner >= -0.5).all() and (corner < [tile.w - 0.5, tile.h - 0.5]).all()
        assert tile.zoom == frame / max(tile.w, tile.h)


@settings(deadline=None)
@given(scenes())
def test_tiles_are_no_larger_than_asked_and_zoomed_within_the_limits(scene):
    _, height, width, frame, tiles = scene
    for tile in planned(*scene):
        if tiles.mode == "none":
            assert (tile.x0, tile.y0, tile.w, tile.h) == (0, 0, width, height)
        elif tiles.mode == "fixed":
            assert (tile.w, tile.h) == (min(tiles.side, width), min(tiles.side, height))
        elif max(tile.w, tile.h) < max(height, width):  # the whole image is never enlarged more than SAM does anyway
            side = max(tile.w, tile.h)
            assert side >= min(round(frame / tiles.max_zoom), max(height, width)) or side == min(height, width)


def candidates(length, side, overlap):
    """First pixels of the tiles of one axis: as few as the overlap allows, evenly spread."""
    if side >= length:
        return [0]
    count = 1
    while count == 1 or (length - side) / (count - 1) > max(1.0, side * (1 - overlap)) + 1e-9:
        count += 1
    return [round(k * (length - side) / (count - 1)) for k in range(count)]


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_the_owner_is_the_tile_where_the_point_lies_deepest(scene):
    points, height, width, frame, tiles = scene
    tiles = tiles.model_copy(update={"mode": "fixed", "side": min(tiles.side, 300)})
    clipped = clip_points(points, height, width)

    def depth(place, start, side, length):
        if not -0.5 <= place - start < side - 0.5:
            return -np.inf
        before = np.inf if start == 0 else place - (start - 0.5)
        after = np.inf if start + side == length else start + side - 0.5 - place
        return min(before, after)

    for tile in planned(points, height, width, frame, tiles):
        columns = candidates(width, tile.w, tiles.overlap)
        lines = candidates(height, tile.h, tiles.overlap)
        assert tile.x0 in columns and tile.y0 in lines
        for x, y in clipped[tile.owned]:
            assert depth(x, tile.x0, tile.w, width) == max(depth(x, c, tile.w, width) for c in columns) > -np.inf
            assert depth(y, tile.y0, tile.h, height) == max(depth(y, r, tile.h, height) for r in lines) > -np.inf


@pytest.mark.parametrize("overlap", [0.25, 0.5])
@pytest.mark.parametrize(("height", "width"), [(700, 1100), (1100, 700)])
def test_the_window_of_a_head_near_a_seam_lies_inside_its_tile(height, width, overlap):
    """A head is cut by no seam as long as its window is not wider than the strip that two tiles share."""
    rng = np.random.default_rng(3)
    points = rng.uniform(0, [width - 1, height - 1], (800, 2))
    distances = neighbour_distances(points)
    reach = window_reach(distances, height, width)
    side = 320
    checked = 0
    for tile in plan(points, distances, height, width, 256, Tiles(mode="fixed", side=side, overlap=overlap)):
        for i in tile.owned:
            if reach[i] > overlap * side / 2 - 1:
                continue
            (x, y), r = points[i], reach[i]
            assert max(x - r, 0) >= tile.x0 - 0.5 and min(x + r, width - 1) <= tile.x0 + tile.w - 0.5
            assert max(y - r, 0) >= tile.y0 - 0.5 and min(y + r, height - 1) <= tile.y0 + tile.h - 0.5
            checked += 1
    assert checked > 600


def test_automatic_tiles_show_a_head_and_its_surroundings():
    """In a perspective crowd the next seam is about the local spacing away or more: heads are far smaller.

    Whole circles are not promised: those of people much lonelier than their neighbours can be cut by a seam.
    """
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(0, 1023, 900), 700 * rng.random(900) ** 2 + 30], axis=1)
    distances = neighbour_distances(points)
    spacing = local_spacing(points, distances)
    for tile in plan(points, distances, 768, 1024, 256, Tiles()):
        for i in tile.owned:
            x, y = points[i]
            room = [x - tile.x0 + 0.5] * (tile.x0 > 0) + [tile.x0 + tile.w - 0.5 - x] * (tile.x0 + tile.w < 1024)
            room += [y - tile.y0 + 0.5] * (tile.y0 > 0) + [tile.y0 + tile.h - 0.5 - y] * (tile.y0 + tile.h < 768)
            assert min(room, default=np.inf) >= 0.8 * spacing[i] - 1


@settings(deadline=None)
@given(scenes(), st.floats(1.0, 16.0))
def test_automatic_zoom_keeps_its_limits(scene, max_zoom):
    points, height, width, frame, tiles = scene
    tiles = tiles.model_copy(update={"max_zoom": max_zoom})
    points = clip_points(points, height, width)
    zoom = zoom_levels(local_spacing(points, neighbour_distances(points)), height, width, frame, tiles)
    assert zoom.shape == (len(points),) and np.isfinite(zoom).all()
    assert (zoom <= max_zoom * (1 + 1e-6)).all()
    least = min(1.0, tiles.across * frame / max(height, width))
    assert (zoom >= least / 2**0.25 * (1 - 1e-6)).all()  # levels are half an octave apart: rounded by a quarter
    np.testing.assert_allclose(2 * np.log2(zoom), np.round(2 * np.log2(zoom)), atol=1e-9)


@pytest.mark.parametrize(
    ("spacing", "zoom"),
    [(32.0, 1.0), (16.0, 2.0), (8.0, 4.0), (1.0, 4.0), (64.0, 1.0), (22.6, 2**0.5), (np.inf, 1.0)],
)
def test_automatic_zoom_brings_the_spacing_to_its_target(spacing, zoom):
    # 4 tiles of 256 pixels are as long as the image, so nothing is shown smaller than it is.
    tiles = Tiles(target_px=32.0)
    found = zoom_levels(np.array([spacing]), 768, 1024, 256, tiles)
    assert found[0] == pytest.approx(zoom)
    assert zoom_levels(np.array([spacing]), 6000, 8192, 256, tiles)[0] == pytest.approx(
        min(max(32 / spacing, 1 / 8), 4), rel=0.01
    )


@pytest.mark.parametrize("mode", MODES)
def test_no_one_and_duplicate_points(mode):
    tiles = Tiles(mode=mode, side=100)
    assert planned(np.zeros((0, 2)), 300, 400, 256, tiles) == []
    (one,) = planned(np.array([[399.0, 0.0]]), 300, 400, 256, tiles)
    assert one.owned.tolist() == [0]
    (same,) = planned(np.array([[7.5, 9.5]] * 4), 300, 400, 256, tiles)
    assert sorted(same.owned.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (2, 3), (31, 33)])
def test_tiny_images_are_one_tile(mode, height, width):
    points = np.array([[0, 0], [width - 1, height - 1], [width / 2, height / 2]], float)
    (tile,) = planned(points, height, width, 1024, Tiles(mode=mode, side=64))
    assert (tile.x0, tile.y0, tile.w, tile.h) == (0, 0, width, height)


def test_a_point_between_two_tiles_goes_to_the_one_that_holds_its_pixel():
    # Without overlap pixel 512 begins the second tile, and 511.5 rounds to it.
    points = np.array([[511.5, 10.0], [511.4, 10.0]])
    made = planned(points, 100, 1024, 1024, Tiles(mode="fixed", side=512, overlap=0.0))
    assert [(tile.x0, tile.owned.tolist()) for tile in made] == [(0, [1]), (512, [0])]


def test_the_order_of_points_changes_owners_of_nobody():
    rng = np.random.default_rng(5)
    points = rng.uniform(0, 600, (150, 2))
    order = rng.permutation(150)
    where = {}
    for tile in planned(points, 640, 640, 256, Tiles()):
        where |= {int(i): (tile.x0, tile.y0, tile.w) for i in tile.owned}
    for tile in planned(points[order], 640, 640, 256, Tiles()):
        assert all(where[int(order[i])] == (tile.x0, tile.y0, tile.w) for i in tile.owned)
