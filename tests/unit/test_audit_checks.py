"""The audit's checks of one annotation and one picture, against plain counting."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdmask.audit import charts, checks, pictures
from crowdmask.audit.checks import Bars
from crowdmask.datasets.base import Annotation

NO_BARS = Bars(0, 0, 0, 0)
PLACES = st.lists(st.tuples(st.integers(-6, 36), st.integers(-6, 26)), max_size=40)


def array(places: list[tuple[float, float]], step: float = 0.5) -> np.ndarray:
    return np.array(places, np.float64).reshape(-1, 2) * step


@given(PLACES)
def test_same_spot_and_close_against_all_pairs(places: list[tuple[float, float]]) -> None:
    points = array(places)
    again = [k for k in range(len(points)) if (points[:k] == points[k]).all(axis=1).any()]
    found = checks.check_same_spot(points)
    assert [list(f.rows) for f in found] == ([again] if again else [])
    first = [k for k in range(len(points)) if k not in again]
    close = set()
    for one in first:
        others = [(np.hypot(*(points[one] - points[other])), other) for other in first if other != one]
        # Whoever has a neighbour nearer than 2 px: the pair with one of its nearest is told.
        if others and min(others)[0] < checks.CLOSE_PX:
            close.add(one)
    told = {row for f in checks.check_close(points) for row in f.rows}
    assert told <= close
    for one in close:
        near = [k for k in first if k != one and np.hypot(*(points[one] - points[k])) < checks.CLOSE_PX]
        assert one in told or told & set(near)


@given(PLACES)
def test_outside_and_beyond_the_edge_against_the_definition(places: list[tuple[float, float]]) -> None:
    points = array(places)
    found = {f.kind: set(f.rows) for f in checks.check_inside(points, 10, 15)}
    if "swapped_axes" in found:
        return
    for row, (x, y) in enumerate(points):
        beyond = max(-0.5 - x, x - 14.5, -0.5 - y, y - 9.5)
        inside = -0.5 <= x < 14.5 and -0.5 <= y < 9.5
        kind = None if inside else "outside" if beyond >= 1 else "beyond_edge"
        assert {name for name, rows in found.items() if row in rows} == ({kind} if kind else set())


def test_rows_of_points_that_are_no_place_are_left_out_of_the_other_checks() -> None:
    points = np.array([[1.0, 1.0], [np.nan, 1.0], [5.0, 5.0], [1.0, 1.0], [np.inf, 0.0]])
    found = {f.kind: f.rows for f in checks.check_annotation(Annotation(points), (20, 20), NO_BARS)}
    assert found == {"not_finite": (1, 4), "duplicate_points": (3,)}
    found = {f.kind: f.rows for f in checks.check_annotation(Annotation(points), None, NO_BARS)}
    assert found == {"not_finite": (1, 4), "duplicate_points": (3,)}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_points(count: int) -> None:
    annotation = Annotation(np.arange(2.0 * count).reshape(-1, 2) * 5, np.zeros((count, 4)), count)
    kinds = {f.kind for f in checks.check_annotation(annotation, (20, 20), NO_BARS)}
    assert kinds == ({"box_degenerate"} if count else {"no_points"})
    assert sum(checks.nearest_histogram(annotation.points_xy)) == (2 if count == 2 else 0)


def test_very_many_points_on_one_spot_need_no_pairs() -> None:
    points = np.zeros((200_000, 2))
    found = {f.kind: len(f.rows) for f in checks.check_annotation(Annotation(points), (100, 100), NO_BARS)}
    assert found == {"duplicate_points": 199_999, "absurd_count": 0}


def test_boxes() -> None:
    nan = float("nan")
    boxes = np.array(
        [[0, 0, 4, 4], [4, 0, 0, 4], [nan, 0, 4, 4], [90, 90, 99, 99], [0, 0, 18, 19], [5, 5, 9, 9]], float
    )
    points = np.array([[2, 2], [2, 2], [2, 2], [95, 95], [9, 9], [10.5, 7]], float)
    found = {f.kind: f.rows for f in checks.check_boxes(boxes, points, 20, 20)}
    assert found == {"box_degenerate": (1, 2), "box_outside": (3,), "box_without_point": (5,)}
    many = np.concatenate([boxes[[0, 5, 0, 5]], boxes[4:5]])
    assert {f.kind: f.rows for f in checks.check_boxes(many, points[:1], 20, 20)} == {
        "box_count": (),
        "box_absurd": (4,),
    }
    # The last pixel as a box that counts from corners of pixels, and from their centres: in the image both.
    corners = np.array([[19, 19, 20, 20], [18.5, 18.5, 19.5, 19.5], [19.5, 0, 20.5, 1], [-0.7, 0, -0.5, 1]])
    assert [f.rows for f in checks.check_boxes(corners, corners[:, :2], 20, 20)] == [(2, 3)]


def noise(height: int = 80, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_flat_borders() -> None:
    assert pictures.flat_bars(noise()) == NO_BARS
    boxed = noise()
    boxed[:10], boxed[-12:], boxed[:, :9], boxed[:, -7:] = 0, 255, 30, 60
    assert pictures.flat_bars(boxed[:, 9:-7]) == (10, 12, 0, 0)
    side = noise()
    side[:, :9] = 30
    assert pictures.flat_bars(side) == (0, 0, 9, 0)
    assert pictures.flat_bars(np.full((30, 40, 3), 7, np.uint8)) == (30, 0, 40, 0)
    # A dark background with a few things on it fades out; that is no bar.
    dark = np.zeros((80, 120, 3), np.uint8)
    dark[30:40, 50:60] = 200
    assert pictures.flat_bars(dark) == NO_BARS


def test_pixels_have_one_digest_in_every_form_and_another_for_another_shape() -> None:
    photo = noise()
    assert pictures.pixel_digest(photo) == pictures.pixel_digest(np.asfortranarray(photo))
    assert pictures.pixel_digest(photo) != pictures.pixel_digest(photo.reshape(120, 80, 3))


def test_thumbnails_are_small_and_hold_points_outside() -> None:
    data = pictures.thumbnail(noise(1200, 2400), np.array([[5000.0, -9.0], [10.0, 10.0]]), np.array([True, False]))
    assert data.startswith(b"\xff\xd8") and len(data) < 900 * 450


@pytest.mark.parametrize("values", [[], [0], [5], [0, 1, 1e6], [3] * 50])
def test_charts_are_well_formed_and_count_everything(values: list[float]) -> None:
    drawn = ET.fromstring(charts.histogram(values, "a < b & c"))
    titles = [title.text or "" for title in drawn.iter("title")]
    assert sum(int(text.rpartition(" ")[2].replace(",", "")) for text in titles) == sum(v > 0 for v in values)
    scatter = ET.fromstring(charts.sizes([(int(v) + 1, 4) for v in values], "x"))
    assert len(list(scatter.iter("circle"))) == len(set(values))
