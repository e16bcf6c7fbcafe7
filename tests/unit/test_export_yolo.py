"""Polygons along the sides of pixels, and files of them."""

import json

import cv2
import numpy as np
import pytest
from exported import DRAWN, RING, batch, write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from crowdmask.corrections.drawing import fill_polygons
from crowdmask.errors import DataError
from crowdmask.export import cracks, yolo
from crowdmask.masks.rle import Window


def shoelace(corners):
    x, y = np.array(corners, float).T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2


@settings(max_examples=300)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_a_polygon_holds_exactly_the_pixels(mask):
    if not mask.any():
        return
    corners = cracks.polygon(mask)
    assert shoelace(corners) == mask.sum()  # also the winding is right: holes turn the other way
    for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
        assert (a[0] == b[0]) != (a[1] == b[1])  # along pixel sides, and no corner twice in a row
    again = fill_polygons([[v - 0.5 for corner in corners for v in corner]], *mask.shape)
    np.testing.assert_array_equal(again.full(*mask.shape), mask)
    # Another library, at pixel centres.
    winding = [
        cv2.pointPolygonTest(np.array(corners, np.float32), (x + 0.5, y + 0.5), False) for y, x in np.argwhere(mask)
    ]
    assert all(side > 0 for side in winding)
    _, fragments = ndimage.label(mask, np.ones((3, 3)))
    holes = ndimage.label(~np.pad(mask, 1))[1] - 1
    assert len(cracks.rings(mask)) == fragments + holes


def test_polygons_of_known_masks():
    assert cracks.polygon(np.ones((1, 1), bool)) == [(1, 0), (1, 1), (0, 1), (0, 0)]
    assert cracks.polygon(np.ones((2, 3), bool)) == [(3, 0), (3, 2), (0, 2), (0, 0)]
    outer, inner = cracks.rings(RING[2:7, 2:7])
    assert (shoelace(outer), shoelace(inner)) == (25, -1)


def test_many_fragments():
    mask = np.zeros((60, 61), bool)
    mask[::2, ::2] = True
    corners = cracks.polygon(mask)
    again = fill_polygons([[v - 0.5 for corner in corners for v in corner]], 60, 61)
    np.testing.assert_array_equal(again.full(60, 61), mask)


def test_yolo_lines(tmp_path):
    write("yolo", tmp_path / "yolo", [batch(tmp_path, {"a": DRAWN})])
    lines = (tmp_path / "yolo/labels/train/a.txt").read_text().splitlines()
    assert len(lines) == 6 and lines[0] == "0 0.066667 0.000000 0.066667 0.083333 0.000000 0.083333 0.000000 0.000000"
    assert json.loads((tmp_path / "yolo/train.json").read_text())["counts"] == {"without_pixels": 0, "bridged": 2}


def test_yolo_coordinates_are_fine_enough_for_the_largest_images():
    rng = np.random.default_rng(0)
    for x0, y0 in [(0, 0), (65_000, 30_000), (12_345, 6_789)]:
        window = Window(x0, y0, rng.random((9, 11)) < 0.6)
        text, _ = yolo.line(window.tight(), 30_030, 65_535)
        corners = np.array([float(field) for field in text.split()[1:]]).reshape(-1, 2) * (65_535, 30_030) - 0.5
        np.testing.assert_array_equal(fill_polygons([corners.ravel()], 30_030, 65_535).cut(x0, y0, 11, 9), window.mask)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.1 0.1", "a box, no polygon"),
        ("0 0.1 0.1 0.2 0.2", "a box"),
        ("0 0.1 0.1 0.2", "4 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 nan", "from 0 to 1"),
        ("0 0.1 0.1 0.2 0.2 0.3 1.5", "from 0 to 1"),
        ("x 0.1 0.1 0.2 0.2 0.3 0.3", "invalid literal"),
        ("0 0.1 0.1 0.2 0.2 0.3 1e999", "from 0 to 1"),
        ("0 a b c d e f", "could not convert"),
    ],
)
def test_yolo_faults_name_the_row(tmp_path, text, message):
    path = tmp_path / "x.txt"
    path.write_text("0 0.1 0.1 0.2 0.1 0.2 0.3\n\n" + text + "\n")
    with pytest.raises(DataError, match=message) as caught:
        yolo.read_file(path, 10, 10)
    assert caught.value.row == 2


def test_yolo_reads_other_programs_polygons(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("3 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\r\n7 0 0 1 0 1 1 0 1")
    classes, windows = yolo.read_file(path, 10, 10)
    assert classes.tolist() == [3, 7]
    assert [(w.x0, w.y0, *w.mask.shape, w.area) for w in windows] == [(1, 1, 4, 4, 16), (0, 0, 10, 10, 100)]
