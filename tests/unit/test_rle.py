"""Windows and run lengths against pycocotools on whole frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from crowdmask.masks.rle import Window, decode, digest, encode, from_full, full_counts


@st.composite
def framed(draw):
    """A window inside a frame, often touching its borders, and the frame's size."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    h, w = draw(st.integers(0, height)), draw(st.integers(0, width))
    y0, x0 = draw(st.integers(0, height - h)), draw(st.integers(0, width - w))
    kind = draw(st.sampled_from(["random", "full", "empty"]))
    if kind == "random":
        mask = draw(hnp.arrays(bool, (h, w)))
    else:
        mask = np.full((h, w), kind == "full")
    return Window(x0, y0, mask), height, width


def reference(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@given(framed())
def test_counts_of_the_frame_are_those_of_the_drawn_frame(case):
    window, height, width = case
    assert full_counts(window, height, width) == reference(window.full(height, width))


@given(framed(), st.integers(-30, 30), st.integers(-30, 30))
def test_a_window_that_leaves_the_frame_is_cut(case, dx, dy):
    window, height, width = case
    moved = Window(window.x0 + dx, window.y0 + dy, window.mask)
    assert full_counts(moved, height, width) == reference(moved.full(height, width))


RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)


@pytest.mark.parametrize(
    ("window", "height", "width"),
    [
        (Window(0, 0, np.ones((5, 7), bool)), 5, 7),  # the whole frame: starts with a run of no zeros
        (Window(2, 0, np.ones((5, 3), bool)), 5, 7),  # as high as the frame: one run over columns
        (Window(0, 2, np.ones((1, 7), bool)), 5, 7),
        (Window(6, 4, np.ones((1, 1), bool)), 5, 7),  # last pixel: no run of zeros at the end
        (Window(0, 0, np.ones((1, 1), bool)), 5, 7),
        (Window(3, 2, np.zeros((0, 0), bool)), 5, 7),
        (Window(3, 2, np.zeros((2, 2), bool)), 5, 7),
        (Window(0, 0, np.ones((1, 1), bool)), 1, 1),
        (Window(2, 1, RING), 6, 8),
        (Window(0, 1, RING), 6, 8),
        (Window(5, 1, RING), 6, 8),
        (Window(2, 0, RING), 6, 8),
        (Window(2, 3, RING), 6, 8),
        (Window(0, 0, RING), 3, 3),  # a hole in a mask that touches all borders
        (Window(18_000, 4_000, np.ones((20, 30), bool)), 4028, 19_044),  # the largest image of NWPU-Crowd
    ],
)
def test_counts_of_the_frame_at_its_borders(window, height, width):
    assert full_counts(window, height, width) == reference(window.full(height, width))


@given(hnp.arrays(bool, st.tuples(st.integers(0, 20), st.integers(0, 20))))
def test_encode_round_trip(mask):
    back = decode(encode(mask), *mask.shape)
    assert back.dtype == bool
    np.testing.assert_array_equal(back, mask)


def test_encode_does_not_depend_on_memory_order():
    mask = np.random.default_rng(0).random((9, 5)) < 0.5
    assert encode(mask) == encode(np.asfortranarray(mask)) == encode(mask[::-1][::-1])


@given(framed())
def test_columns_round_trip(case):
    window, _, _ = case
    columns = window.columns()
    assert (columns["h"], columns["w"]) == window.mask.shape
    back = Window.from_columns(columns)
    assert (back.x0, back.y0) == (window.x0, window.y0)
    np.testing.assert_array_equal(back.mask, window.mask)


@given(framed())
def test_from_full_is_the_tight_window(case):
    window, height, width = case
    back, tight = from_full(full_counts(window, height, width), height, width), window.tight()
    assert back.area == window.area
    np.testing.assert_array_equal(back.mask, tight.mask)
    if window.area:
        assert (back.x0, back.y0) == (tight.x0, tight.y0)


@given(framed())
def test_tight_keeps_the_mask_and_touches_all_its_sides(case):
    window, height, width = case
    tight = window.tight()
    np.testing.assert_array_equal(tight.full(height, width), window.full(height, width))
    if window.area:
        assert tight.mask[0].any() and tight.mask[-1].any() and tight.mask[:, 0].any() and tight.mask[:, -1].any()
    else:
        assert tight.mask.shape == (0, 0)


@given(framed(), st.integers(-5, 25), st.integers(-5, 25), st.integers(0, 12), st.integers(0, 12))
def test_cut_is_the_frames_part(case, x0, y0, w, h):
    window, height, width = case
    frame = np.pad(window.full(height, width), 40)
    np.testing.assert_array_equal(window.cut(x0, y0, w, h), frame[y0 + 40 : y0 + 40 + h, x0 + 40 : x0 + 40 + w])


@given(framed(), st.integers(-5, 25), st.integers(-5, 25), st.integers(0, 12), st.integers(0, 12))
def test_within_is_cut_without_what_this_window_does_not_have(case, x0, y0, w, h):
    window, height, width = case
    part = window.within(x0, y0, w, h)
    assert np.shares_memory(part.mask, window.mask) or part.mask.size == 0
    if part.mask.size:
        assert x0 <= part.x0 and y0 <= part.y0
        assert part.x0 + part.mask.shape[1] <= x0 + w and part.y0 + part.mask.shape[0] <= y0 + h
    np.testing.assert_array_equal(part.cut(x0, y0, w, h), window.cut(x0, y0, w, h))
    np.testing.assert_array_equal(
        part.full(height, width), Window(x0, y0, window.cut(x0, y0, w, h)).full(height, width)
    )


@given(framed())
def test_equal_masks_have_equal_hashes(case):
    window, height, width = case
    whole = Window(0, 0, window.full(height, width))
    assert digest(window) == digest(window.tight()) == digest(whole)
    assert digest(window) == digest(from_full(full_counts(window, height, width), height, width))


@given(framed(), st.data())
def test_another_pixel_or_place_gives_another_hash(case, data):
    window, _, _ = case
    if window.mask.size:
        flipped = window.mask.copy()
        flipped.flat[data.draw(st.integers(0, flipped.size - 1))] ^= True
        assert digest(Window(window.x0, window.y0, flipped)) != digest(window)
    if window.area:
        assert digest(Window(window.x0 + 1, window.y0, window.mask)) != digest(window)


def test_hash_is_stable():
    # Edits refer to it: a new value here means that every correction file out there becomes stale.
    mask = np.array([[0, 1, 1], [1, 1, 0]], bool)
    assert digest(Window(4, 7, mask)) == "f70c6709768c79477317aacb47d2a0404e5b17816d4f5b5d1a165c790119f4f1"


def test_area_is_what_pycocotools_measures():
    mask = np.random.default_rng(1).random((12, 9)) < 0.4
    counts = full_counts(Window(3, 2, mask), 30, 20)
    assert coco.area({"size": [30, 20], "counts": counts}) == Window(3, 2, mask).area == mask.sum()
