"""Cutting images into crops, the pictures of crops, and the fingerprint of a picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask.corrections.crops import Box, Crop, cut, picture
from crowdmask.corrections.looks import looks

NO_BOXES = np.zeros((0, 4), int)


def pixel_boxes(points: np.ndarray) -> np.ndarray:
    """Masks of one pixel, at their points."""
    return np.column_stack([points, np.ones_like(points)])


@st.composite
def crowds(draw):
    """An image, points in it and around it, and boxes anywhere in it."""
    height, width = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    number = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Coarse places make ties and equal points; some lie outside.
    step = draw(st.sampled_from([0.25, 1, 10, 100]))
    points = np.floor(rng.uniform(-20, 220, (number, 2)) / step) * step
    x0, y0 = rng.integers(0, width, number), rng.integers(0, height, number)
    w = np.array([rng.integers(1, width - x + 1) for x in x0], int)
    h = np.array([rng.integers(1, height - y + 1) for y in y0], int)
    boxes = np.column_stack([x0, y0, w, h]).reshape(-1, 4)
    return height, width, points, boxes, draw(st.integers(1, 20)), draw(st.integers(0, 40))


@given(crowds())
@settings(max_examples=300)
def test_what_holds_for_every_crowd(crowd):
    height, width, points, boxes, limit, margin = crowd
    parts = cut(height, width, points, boxes, limit, margin)
    # Every head in exactly one crop, at most so many each.
    assert sorted(i for part in parts for i in part.heads) == list(range(len(points)))
    assert all(len(part.heads) <= limit for part in parts)
    assert (len(parts) == 1) == (len(points) <= limit)
    # Cores tile the image; the same core comes again only for heads of one pixel.
    cover = np.zeros((height, width), int)
    for core in {part.core for part in parts}:
        assert core.w > 0 and core.h > 0
        cover[core.y0 : core.y1, core.x0 : core.x1] += 1
    assert (cover == 1).all()
    for part in parts:
        core, box = part.core, part.box
        assert 0 <= box.x0 <= core.x0 and core.x1 <= box.x1 <= width
        assert 0 <= box.y0 <= core.y0 and core.y1 <= box.y1 <= height
        for i in part.heads:
            # Nearest pixel of the image, counted here in another way: distances to all columns and rows.
            x = int(
                np.flatnonzero(
                    np.abs(np.arange(width) - points[i, 0]) == np.abs(np.arange(width) - points[i, 0]).min()
                )[-1]
            )
            y = int(
                np.flatnonzero(
                    np.abs(np.arange(height) - points[i, 1]) == np.abs(np.arange(height) - points[i, 1]).min()
                )[-1]
            )
            assert core.x0 <= x < core.x1 and core.y0 <= y < core.y1
            x0, y0, w, h = boxes[i]
            assert box.x0 <= max(x0 - margin, 0) and min(x0 + w + margin, width) <= box.x1
            assert box.y0 <= max(y0 - margin, 0) and min(y0 + h + margin, height) <= box.y1
    again = [part.core for part in parts if sum(other.core == part.core for other in parts) > 1]
    for core in set(again):
        same = [i for part in parts if part.core == core for i in part.heads]
        assert len(same) > limit
    assert cut(height, width, points.copy(), boxes.copy(), limit, margin) == parts


def test_a_few_heads_stay_on_the_whole_image():
    whole = Box(0, 0, 50, 40)
    assert cut(40, 50, np.zeros((0, 2)), NO_BOXES, 1, 32) == [Crop(whole, whole, ())]
    points = np.array([[3, 4], [5, 6]])
    assert cut(40, 50, points, pixel_boxes(points), 2, 32) == [Crop(whole, whole, (0, 1))]


def test_halves_lie_at_the_median_along_the_longer_side():
    points = np.array([[90, 1], [10, 9], [20, 5], [80, 2]])
    left, right = cut(10, 100, points, pixel_boxes(points), 2, 0)
    # Half of the way from 20 to 80, rounded up.
    assert left == Crop(Box(0, 0, 50, 10), Box(0, 0, 50, 10), (1, 2))
    assert right == Crop(Box(50, 0, 50, 10), Box(50, 0, 50, 10), (0, 3))
    upper, lower = cut(100, 10, points[:, ::-1], pixel_boxes(points[:, ::-1]), 2, 0)
    assert upper.core == Box(0, 0, 10, 50) and upper.heads == (1, 2)
    assert lower.core == Box(0, 50, 10, 50) and lower.heads == (0, 3)


def test_points_in_one_column_are_divided_along_it():
    points = np.array([[30, y] for y in (1, 2, 3, 4)])
    upper, lower = cut(10, 100, points, pixel_boxes(points), 2, 0)
    assert (upper.core, upper.heads) == (Box(0, 0, 100, 3), (0, 1))
    assert (lower.core, lower.heads) == (Box(0, 3, 100, 7), (2, 3))


def test_ties_at_the_median_go_together():
    points = np.array([[x, 0] for x in (5, 5, 5, 5, 9)])
    parts = cut(1, 20, points, pixel_boxes(points), 4, 0)
    assert [(part.core.x0, part.heads) for part in parts] == [(0, (0, 1, 2, 3)), (7, (4,))]


def test_equal_points_are_divided_by_their_order():
    points = np.array([[5.0, 5.0]] * 7 + [[15, 5]])
    parts = cut(10, 20, points, pixel_boxes(points.astype(int)), 2, 1)
    assert [part.heads for part in parts] == [(0,), (1, 2), (3, 4), (5, 6), (7,)]
    assert [part.core for part in parts] == [Box(0, 0, 10, 10)] * 4 + [Box(10, 0, 10, 10)]


def test_a_crop_holds_its_masks_and_a_margin_but_not_more_than_the_image():
    points = np.array([[20, 50], [180, 50]])
    boxes = np.array([[10, 40, 130, 20], [170, 45, 10, 10]])
    left, right = cut(100, 200, points, boxes, 1, 32)
    assert left.core == Box(0, 0, 100, 100) and right.core == Box(100, 0, 100, 100)
    assert left.box == Box(0, 0, 172, 100)  # the mask ends before column 140
    assert right.box == Box(68, 0, 132, 100)


def test_thousands_of_heads_give_few_crops():
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(0, 4000, 20_000), rng.uniform(0, 3000, 20_000)])
    parts = cut(3000, 4000, points, pixel_boxes(points.astype(int)), 800, 32)
    # Halves of halves: 32 crops of 625, as 16 would have 1,250 each.
    assert len(parts) == 32
    assert all(600 <= len(part.heads) <= 650 for part in parts)  # equal columns go together


def test_only_what_lies_outside_of_the_core_is_dark():
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    before = pixels.copy()
    part = Crop(Box(10, 5, 8, 6), Box(7, 3, 15, 12), ())
    made = picture(pixels, part)
    assert made.shape == (12, 15, 3) and made.dtype == np.uint8
    for y, x in itertools.product(range(12), range(15)):
        inner = 10 <= x + 7 < 18 and 5 <= y + 3 < 11
        value = before[y + 3, x + 7]
        assert (made[y, x] == (value if inner else value // 2)).all()
    made[:] = 0
    assert (pixels == before).all()


# Looks


def test_the_fingerprint_of_parts_of_one_colour_is_their_grey():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    big = np.kron(grey, np.ones((5, 3), np.uint8))
    assert looks(big) == grey.tobytes().hex()
    assert looks(np.repeat(big[:, :, None], 3, axis=2)) == grey.tobytes().hex()
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, :, 0] = 255
    assert looks(red) == "4c" * 64  # 0.299 x 255 = 76.2


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 100), (9, 8), (100, 61)])
def test_the_fingerprint_is_the_mean_of_each_part(shape):
    picture = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    grey = picture.astype(float) @ [0.299, 0.587, 0.114]
    found = np.frombuffer(bytes.fromhex(looks(picture)), np.uint8).reshape(8, 8)
    for i, j in itertools.product(range(8), range(8)):
        # A pixel k of n belongs to part i where [k, k + 1) meets [i n / 8, (i + 1) n / 8).
        rows = [k for k in range(shape[0]) if 8 * (k + 1) > i * shape[0] and 8 * k < (i + 1) * shape[0]]
        columns = [k for k in range(shape[1]) if 8 * (k + 1) > j * shape[1] and 8 * k < (j + 1) * shape[1]]
        assert abs(found[i, j] - grey[np.ix_(rows, columns)].mean()) <= 0.5 + 1e-9


def test_a_fingerprint_outlives_jpeg_and_tells_pictures_apart():
    import cv2

    rng = np.random.default_rng(4)
    one, other = (cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (320, 240)) for _ in range(2))
    saved = cv2.imdecode(cv2.imencode(".jpg", one, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)

    def difference(a, b):
        first, second = (np.frombuffer(bytes.fromhex(looks(p)), np.uint8).astype(int) for p in (a, b))
        return np.abs(first - second).max()

    assert difference(one, saved) <= 3
    assert difference(one, other) > 30
