"""Boundary IoU against repeated erosion of full frames, as its authors define it, and drawn shapes."""

import cv2
import numpy as np
import pytest
from crowds import EMPTY, box, disc, full, overlapping
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import erosion, footprint_rectangle

from crowdmask.masks.rle import Window
from crowdmask.metrics.boundary import band, boundary_iou, usual_width


def naive_band(frame, d):
    """The frame less its erosion by d times 3 x 3, with a border of zeros around."""
    padded = np.pad(frame.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1]
    return frame & (inner == 0)


def naive(a, b, d):
    first, second = naive_band(a, d), naive_band(b, d)
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 7))
def test_windows_equal_full_frames(seed, d):
    rng = np.random.default_rng(seed)
    masks = [mask.within(0, 0, 30, 24) for mask in overlapping(rng, 24, 30, 3, largest=22)]
    masks.append(disc(14, 12, int(rng.integers(1, 11))))
    frames = full(masks, 24, 30)
    for mask, frame in zip(masks, frames, strict=True):
        np.testing.assert_array_equal(band(mask, d).full(24, 30), naive_band(frame, d))
    for i in range(4):
        for j in range(4):
            assert boundary_iou(masks[i], masks[j], d) == pytest.approx(naive(frames[i], frames[j], d), abs=1e-15)


def test_known_bands():
    assert band(box(0, 0, 10, 10), 1).area == 36 and band(box(5, 5, 10, 10), 2).area == 64
    assert band(box(0, 0, 4, 40), 2).area == 160  # no pixel is 2 steps inside of both long sides
    assert band(box(0, 0, 5, 40), 2).area == 200 - 36
    assert band(EMPTY, 3).area == 0
    # 10 x 10 against 8 x 8 within: IoU 0.64, but their outlines of one pixel share nothing.
    assert boundary_iou(box(0, 0, 10, 10), box(1, 1, 8, 8), 1) == 0
    assert boundary_iou(box(0, 0, 10, 10), box(1, 1, 8, 8), 2) == pytest.approx(28 / 84)
    assert boundary_iou(box(0, 0, 10, 10), box(1, 1, 8, 8), 5) == pytest.approx(0.64)
    assert boundary_iou(EMPTY, EMPTY, 1) == boundary_iou(EMPTY, box(0, 0, 2, 2), 1) == 0


def test_the_edge_of_the_image_is_a_boundary():
    """What a larger window knows of the image makes no difference: beyond the mask's own pixels there is none."""
    whole = Window(0, 0, np.ones((12, 12), bool))
    np.testing.assert_array_equal(band(whole, 1).mask, ~np.pad(np.ones((10, 10), bool), 1))


def test_a_hole_has_a_boundary_too():
    mask = np.ones((21, 21), bool)
    mask[10, 10] = False
    expected = mask & ~erosion(np.pad(mask, 5), footprint_rectangle((5, 5)))[5:-5, 5:-5]
    np.testing.assert_array_equal(band(Window(0, 0, mask), 2).mask, expected)
    assert expected[8:13, 8:13].sum() == 24 and not expected[5, 5]


@pytest.mark.parametrize(("size", "width"), [((768, 1024), 26), ((1, 1), 1), ((30, 40), 1), ((300, 400), 10)])
def test_two_percent_of_the_diagonal(size, width):
    assert usual_width(*size) == width
