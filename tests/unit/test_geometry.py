"""Pixels, distances and circles against definitions written as loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask.geometry import (
    circle_box,
    clip_points,
    local_spacing,
    neighbour_distances,
    own_pixels,
    squared_distance,
)

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
# Quarters, so that halves, whole numbers and duplicates all happen.
COORDINATE = st.integers(-40, 200).map(lambda n: n / 4)
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), max_size=12).map(lambda p: np.array(p, float).reshape(-1, 2))


def distances_by_definition(points):
    """Nearest other place of each point, by looking at all pairs."""
    out = np.full(len(points), np.inf)
    for i, a in enumerate(points):
        for b in points:
            if tuple(a) != tuple(b):
                out[i] = min(out[i], np.hypot(*(a - b)))
    return out


@settings(deadline=None)
@given(POINTS, SIZES)
def test_clipped_points_are_the_nearest_places_of_the_image(points, size):
    height, width = size
    clipped = clip_points(points, height, width)
    assert clipped.shape == points.shape and clipped.dtype == np.float64
    for (x, y), (cx, cy) in zip(points, clipped, strict=True):
        assert cx == min(max(x, 0), width - 1)
        assert cy == min(max(y, 0), height - 1)


@settings(deadline=None)
@given(POINTS, SIZES)
def test_own_pixels_are_the_nearest_pixels_of_the_image(points, size):
    height, width = size
    pixels = own_pixels(points, height, width)
    assert pixels.dtype == np.int64
    for (x, y), (px, py) in zip(clip_points(points, height, width), pixels, strict=True):
        assert 0 <= px < width and 0 <= py < height
        assert -0.5 <= x - px < 0.5 and -0.5 <= y - py < 0.5  # a half goes up


@pytest.mark.parametrize(
    ("point", "pixel"),
    [((0.5, 0.49), (1, 0)), ((1.5, 2.5), (2, 3)), ((-3, 99), (0, 4)), ((5.9, -0.6), (5, 0)), ((5.0, 4.0), (5, 4))],
)
def test_own_pixel_in_an_image_of_5_rows_and_6_columns(point, pixel):
    assert tuple(own_pixels(np.array([point]), 5, 6)[0]) == pixel


@settings(deadline=None)
@given(POINTS)
def test_neighbour_distances_are_those_to_the_nearest_other_place(points):
    np.testing.assert_allclose(neighbour_distances(points), distances_by_definition(points), rtol=1e-12)


def test_neighbour_distances_of_none_one_and_duplicates():
    assert neighbour_distances(np.zeros((0, 2))).shape == (0,)
    assert neighbour_distances([]).shape == (0,)
    assert np.isinf(neighbour_distances(np.array([[3.0, 4.0]]))).all()
    assert np.isinf(neighbour_distances(np.array([[3.0, 4.0]] * 3))).all()
    np.testing.assert_array_equal(neighbour_distances(np.array([[0, 0], [3, 4], [0, 0.0]])), [5, 5, 5])


@settings(deadline=None)
@given(POINTS, st.integers(1, 8))
def test_local_spacing_is_the_median_over_the_nearest_points(points, neighbours):
    distances = distances_by_definition(points)
    spacing = local_spacing(points, distances, neighbours)
    assert spacing.shape == (len(points),)
    if len(points) < 2:
        np.testing.assert_array_equal(spacing, distances)
        return
    for i, point in enumerate(points):
        squares = ((points - point) ** 2).sum(1)
        order = np.argsort(squares)[: neighbours + 1]
        # Where a tie decides who belongs to the nearest, any choice will do.
        if len(points) <= neighbours + 1 or squares[order[-1]] < np.sort(squares)[neighbours + 1]:
            assert spacing[i] == np.median(distances[order])


@settings(deadline=None)
@given(SIZES, st.data())
def test_circle_box_is_the_smallest_window_of_the_pixels_in_the_circle(size, data):
    height, width = size
    x = data.draw(st.integers(0, 4 * (width - 1))) / 4
    y = data.draw(st.integers(0, 4 * (height - 1))) / 4
    radius = data.draw(st.integers(0, 120)) / 4
    x0, y0, w, h = circle_box(x, y, radius, height, width)
    assert 0 <= x0 and 0 <= y0 and w >= 1 and h >= 1 and x0 + w <= width and y0 + h <= height
    columns = [c for c in range(width) if abs(c - x) <= radius]
    lines = [r for r in range(height) if abs(r - y) <= radius]
    nearest_x, nearest_y = own_pixels(np.array([[x, y]]), height, width)[0]
    assert list(range(x0, x0 + w)) == (columns or [nearest_x])
    assert list(range(y0, y0 + h)) == (lines or [nearest_y])
    for r in range(height):
        for c in range(width):
            if (c - x) ** 2 + (r - y) ** 2 <= radius**2:
                assert x0 <= c < x0 + w and y0 <= r < y0 + h


@settings(deadline=None)
@given(COORDINATE, COORDINATE, st.integers(0, 9), st.integers(0, 9), st.integers(1, 6), st.integers(1, 6))
def test_squared_distance_of_each_pixel(x, y, x0, y0, w, h):
    found = squared_distance(x, y, x0, y0, w, h)
    assert found.shape == (h, w) and found.dtype == np.float64
    for r in range(h):
        for c in range(w):
            assert found[r, c] == (x0 + c - x) ** 2 + (y0 + r - y) ** 2
