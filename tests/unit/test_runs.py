"""Run lengths of many masks at once, against pycocotools on drawn frames."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from crowdmask.masks import rle, runs
from crowdmask.masks.rle import Window


@st.composite
def framed(draw):
    """A window inside of a frame, often touching its borders, and the frame's size."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    h, w = draw(st.integers(0, height)), draw(st.integers(0, width))
    y0, x0 = draw(st.integers(0, height - h)), draw(st.integers(0, width - w))
    kind = draw(st.sampled_from(["random", "full", "empty"]))
    mask = draw(hnp.arrays(bool, (h, w))) if kind == "random" else np.full((h, w), kind == "full")
    return Window(x0, y0, mask), height, width


def packed(texts):
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)])


def split(codes, starts):
    text = codes.tobytes()
    return [text[a:b] for a, b in pairwise(starts)]


def reference(window, height, width):
    return coco.encode(np.asfortranarray(window.full(height, width).astype(np.uint8)))


def reframe(cases):
    columns = [window.columns() for window, _, _ in cases]
    xywh = np.array([[c["x0"], c["y0"], c["w"], c["h"]] for c in columns], np.int64).reshape(-1, 4)
    height, width = (np.array([case[k] for case in cases], np.int64) for k in (1, 2))
    parsed = runs.parse(*packed([c["counts"] for c in columns]), xywh[:, 2] * xywh[:, 3])
    whole, boxes = runs.framed(runs.intervals(*parsed), xywh, height)
    return whole, boxes, split(*runs.compress(whole, height * width))


@given(st.lists(framed(), max_size=6))
def test_windows_become_frames_as_pycocotools_encodes_them(cases):
    whole, boxes, texts = reframe(cases)
    expected = [reference(*case) for case in cases]
    assert texts == [rle_["counts"] for rle_ in expected]
    assert whole.areas.tolist() == [int(coco.area(rle_)) for rle_ in expected]
    for box, rle_, (window, _, _) in zip(boxes.tolist(), expected, cases, strict=True):
        assert box == (coco.toBbox(rle_).tolist() if window.area else [0, 0, 0, 0])


RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
PAIR = np.array([[1, 0, 0, 1]], bool)


@pytest.mark.parametrize(
    ("window", "height", "width"),
    [
        (Window(4, 3, np.ones((1, 1), bool)), 9, 9),
        (Window(2, 1, RING), 6, 8),
        (Window(1, 2, PAIR), 6, 8),
        (Window(0, 0, PAIR.T), 6, 8),
        (Window(5, 3, RING), 6, 8),
        (Window(0, 0, RING), 3, 3),
        (Window(2, 0, np.ones((5, 3), bool)), 5, 7),  # as high as the frame: one run over columns
        (Window(18_000, 4_000, np.ones((20, 30), bool)), 4028, 19_044),
        (Window(19_043, 4_027, np.ones((1, 1), bool)), 4028, 19_044),
    ],
)
def test_drawn_masks(window, height, width):
    whole, boxes, texts = reframe([(window, height, width)])
    assert texts == [reference(window, height, width)["counts"]] == [rle.full_counts(window, height, width)]
    back = runs.windows(whole, height)[0]
    assert (back.x0, back.y0, *back.mask.shape[::-1]) == tuple(boxes[0])
    np.testing.assert_array_equal(back.mask, window.mask)


@given(framed(), st.lists(hnp.arrays(bool, (20, 7)), max_size=4))
def test_windows_of_frames(case, more):
    window, height, width = case
    more = [mask.repeat(4, axis=0)[:height, :width] for mask in more]
    frames = [
        window.full(height, width),
        *(np.pad(m, ((0, height - m.shape[0]), (0, width - m.shape[1]))) for m in more),
    ]
    texts = [coco.encode(np.asfortranarray(frame.astype(np.uint8)))["counts"] for frame in frames]
    whole = runs.intervals(*runs.parse(*packed(texts), np.full(len(texts), height * width)))
    for found, frame in zip(runs.windows(whole, height), frames, strict=True):
        np.testing.assert_array_equal(found.full(height, width), frame)
        assert found.mask.shape == found.tight().mask.shape
    asked: list[int] = []
    runs.windows(runs.intervals(np.array([0, height * width]), np.array([0, 2])), height, asked.append)
    assert asked == [height * width]  # before anything is made


def as_list(counts):
    """The numbers, as pycocotools' own rules decode them, one character after the other."""
    numbers, at = [], 0
    while at < len(counts):
        value = shift = 0
        more = True
        while more:
            code = counts[at] - 48
            value |= (code & 31) << shift
            shift, at, more = shift + 5, at + 1, bool(code & 32)
            if not more and code & 16:
                value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
    return numbers


@given(st.lists(st.lists(st.integers(0, 2**26), min_size=1, max_size=9), max_size=5))
def test_numbers_of_any_size(lists):
    lists = [[*found, 1] if sum(found) == 0 else found for found in lists]
    # Only the characters are compared: pycocotools takes any run lengths here.
    texts = [coco.frPyObjects({"size": [1, sum(f)], "counts": f}, 1, sum(f))["counts"] for f in lists]
    found, starts = runs.parse(*packed(texts), np.array([sum(f) for f in lists], np.int64))
    assert [found[a:b].tolist() for a, b in pairwise(starts)] == lists
    assert [as_list(text) for text in texts] == lists


def test_empty_runs_and_runs_that_touch_are_joined():
    # 2 pixels, no background, 3 pixels: one interval, of which pycocotools makes one run.
    found = runs.intervals(np.array([1, 2, 0, 3, 4]), np.array([0, 5]))
    assert (found.begin.tolist(), found.end.tolist()) == ([1], [6])
    assert runs.intervals(np.array([10]), np.array([0, 1])).starts.tolist() == [0, 0]
    codes, starts = runs.compress(found, np.array([10]))
    assert as_list(split(codes, starts)[0]) == [1, 5, 4]


GOOD = coco.frPyObjects({"size": [4, 5], "counts": [3, 4, 13]}, 4, 5)["counts"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"3 4", "foreign character"),
        (b"34\xc3\xa9", "foreign character"),
        (b"", "empty"),
        (GOOD[:-1] + b"o", "cut off"),
        (b"o" * 9 + b"0", "fits no image"),
        (b"O0", "negative"),
        (GOOD + b"1", "add up"),
        (b"o" * 6 + b"?", "add up"),
    ],
)
def test_faults_name_the_mask(text, problem):
    codes, starts = packed([GOOD, text, GOOD])
    with pytest.raises(runs.RunsError, match=problem) as caught:
        runs.parse(codes, starts, np.array([20, 20, 20]))
    assert caught.value.index == 1


def test_characters_of_one_mask_are_not_those_of_the_next():
    codes, starts = packed([b"", GOOD, b"", GOOD])
    found, first = runs.parse(codes, starts, np.array([0, 20, 0, 20]))
    assert found.tolist() == [3, 4, 13, 3, 4, 13] and first.tolist() == [0, 0, 3, 3, 6]
    # A slice of a column does not begin at 0.
    found, first = runs.parse(codes, starts[2:], np.array([0, 20]))
    assert found.tolist() == [3, 4, 13] and first.tolist() == [0, 0, 3]
