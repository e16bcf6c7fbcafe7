"""Reasons to look at a mask: drawn shapes with known answers, naive references, and what must always hold."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask import tables
from crowdmask.config import Review
from crowdmask.corrections import review, trend
from crowdmask.masks.rle import Window

# pycocotools 2.0.11 and numpy 2 disagree about `copy`; its decoder's result is right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

H, W = 60, 80
EVEN = Review(bias=0.0, **dict.fromkeys(tables.REASONS, 1.0))


def disc(x, y, radius, height=H, width=W):
    rows, columns = np.mgrid[:height, :width]
    return Window(0, 0, (columns - x) ** 2 + (rows - y) ** 2 <= radius**2).tight()


def box(x0, y0, w, h):
    return Window(x0, y0, np.ones((h, w), bool))


def made(mask, point, **values):
    return review.Made(mask, point, **{"radius_px": 12.0, "source": "sam", "lost_px": 0, **values})


def measured(mask, point, deviation=0.0, **values):
    return review.measure(made(mask, point, **values), deviation, H, W)


# ---- one measure after the other


def test_a_round_whole_mask_around_its_point_has_no_reason():
    mask = disc(40, 30, 8)
    found = measured(mask, (40.0, 30.0), predicted_iou=0.95, stability=0.97, found=mask, part=mask)
    assert {name: review.ramp(name, value) for name, value in found.items()} == dict.fromkeys(tables.REASONS, 0.0)


def test_every_reason_is_measured_and_has_a_ramp_and_a_weight():
    assert tuple(measured(disc(40, 30, 8), (40.0, 30.0))) == tables.REASONS == tuple(review.RAMPS)
    assert set(tables.REASONS) < set(Review.model_fields)
    assert all(low < high for low, high in review.RAMPS.values())


@pytest.mark.parametrize(("source", "value"), [("sam", 0.0), ("circle", 1.0), ("pixel", 1.0), ("manual", 0.0)])
def test_fallback(source, value):
    assert measured(disc(40, 30, 8), (40.0, 30.0), source=source)["fallback"] == value


def test_what_sam_says():
    found = measured(box(3, 3, 4, 4), (4.0, 4.0), predicted_iou=0.4, stability=0.25)
    assert (found["low_iou"], found["unstable"]) == (pytest.approx(0.6), 0.75)
    assert review.ramp("low_iou", 1 - 1.07) == 0.0  # SAM's estimate is not clipped
    nothing = measured(box(3, 3, 4, 4), (4.0, 4.0))
    assert (nothing["low_iou"], nothing["unstable"]) == (0.0, 0.0)


def test_cut_by_the_circle():
    point, radius = (40.0, 30.0), 10.0
    assert review.rim_share(disc(40, 30, 10), point, radius, H, W) == 1.0
    assert review.rim_share(disc(40, 30, 9), point, radius, H, W) == 0.0
    half = disc(40, 30, 10)
    half.mask[:, : half.mask.shape[1] // 2] = False  # columns 40 to 50 stay
    assert 0.5 < review.rim_share(half, point, radius, H, W) < 0.55  # and the middle column twice
    assert review.rim_share(box(0, 0, 1, 1), (0.5, 0.5), 0.3, H, W) == 0.0  # a circle without a pixel
    wide = box(30, 30, 41, 1)  # from 30 to 70: 21 of 41 pixels within 10 of 40
    assert review.outside_share(wide, point, radius) == pytest.approx(20 / 41)
    assert review.outside_share(Window(5, 5, np.zeros((0, 0), bool)), point, radius) == 0.0
    both = measured(disc(40, 30, 9), point, radius_px=radius, found=wide)
    assert both["cut"] == pytest.approx(20 / 41)
    assert measured(disc(40, 30, 9), point, radius_px=0.0)["cut"] == 0.0  # heads that people added have no circle


def test_pixels_lost_to_neighbours():
    assert measured(box(3, 3, 4, 4), (4.0, 4.0), lost_px=48)["lost"] == 0.75


@pytest.mark.parametrize(
    ("mask", "pixel", "expected"),
    [
        (box(10, 10, 9, 9), (14, 14), 5.0),
        (box(10, 10, 9, 9), (10, 14), 1.0),
        (box(10, 10, 9, 9), (9, 14), 0.0),
        (box(10, 10, 1, 1), (10, 10), 1.0),
        (box(0, 10, 9, 9), (0, 14), 5.0),  # the image's border is no edge
        (box(0, 0, W, H), (3, 3), math.inf),
    ],
)
def test_depth(mask, pixel, expected):
    assert review.depth(mask, pixel, H, W) == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_depth_is_the_distance_to_the_nearest_pixel_outside(seed):
    rng = np.random.default_rng(seed)
    full = np.zeros((13, 17), bool)
    y, x = int(rng.integers(0, 10)), int(rng.integers(0, 13))
    full[y : y + 6, x : x + 7] = rng.random((6, 7))[: 13 - y, : 17 - x] < 0.9
    pixel = int(rng.integers(17)), int(rng.integers(13))
    apart = [math.hypot(pixel[0] - c, pixel[1] - r) for r, c in np.argwhere(~full)]
    assert review.depth(Window(0, 0, full).tight(), pixel, 13, 17) == pytest.approx(min(apart))


def test_point_near_its_edge_or_outside():
    mask = box(10, 10, 20, 20)
    middle, corner, outside = (measured(mask, at)["edge"] for at in ((20.0, 20.0), (10.0, 10.0), (50.0, 50.0)))
    assert middle == pytest.approx(1 - 10 / (20 / math.sqrt(math.pi))) and outside == 1.0
    assert middle < corner == pytest.approx(1 - math.sqrt(math.pi) / 20)


def test_superpixel_that_is_not_the_mask():
    mask = box(10, 10, 10, 10)
    assert measured(mask, (12.0, 12.0), part=mask)["superpixel"] == 0.0
    assert measured(mask, (12.0, 12.0), part=mask, sharing=4)["superpixel"] == 0.75
    assert measured(mask, (12.0, 12.0), part=box(15, 10, 20, 10))["superpixel"] == 0.75
    assert measured(mask, (12.0, 12.0), part=box(30, 30, 5, 5))["superpixel"] == 1.0
    assert measured(mask, (12.0, 12.0))["superpixel"] == 0.0


def test_shapes():
    ring = disc(40, 30, 12)
    ring.mask[8:17, 8:17] = False
    assert review.shape(np.ones((1, 1), bool)) == review.shape(np.ones((7, 7), bool)) == (0.0, 0.0)
    line = review.shape(np.ones((1, 9), bool))
    assert line == (0.0, pytest.approx(1 - 1 / 9))  # variances 1/12 and 81/12
    corner = np.ones((10, 10), bool)
    corner[:5, :5] = False  # 15 of these 25 pixels lie outside of the hull, too
    assert review.shape(corner)[0] == pytest.approx(1 - 75 / 85)
    assert review.shape(ring.mask)[0] == pytest.approx(81 / disc(40, 30, 12).area)
    apart = np.zeros((3, 9), bool)
    apart[:, :3] = apart[:, 6:] = True
    assert review.shape(apart)[0] == pytest.approx(1 / 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_dents_are_counted_as_a_polygon_is_filled(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((int(rng.integers(1, 12)), int(rng.integers(1, 12)))) < 0.4
    mask[-1, -1] = True
    xs = np.argwhere(mask)[:, ::-1].astype(np.int32)
    filled = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), cv2.convexHull(xs), 1)
    inside = sum(
        cv2.pointPolygonTest(cv2.convexHull(xs), (float(x), float(y)), False) >= 0 for y, x in np.argwhere(filled > 0)
    )
    assert review.shape(mask)[0] == pytest.approx(1 - mask.sum() / inside)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_shape_does_not_depend_on_direction_or_margin(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((int(rng.integers(1, 9)), int(rng.integers(1, 9)))) < 0.6
    mask[0, 0] = True
    wanted = review.shape(mask)
    for other in (mask.T, mask[::-1], mask[:, ::-1], np.pad(mask, 2)):
        assert review.shape(other) == pytest.approx(wanted, abs=1e-9)
    assert 0 <= wanted[0] < 1 and 0 <= wanted[1] < 1


# ---- the trend of sizes


def grid(seed=0, spread=0.03):
    """Points in perspective: the side grows with y."""
    rng = np.random.default_rng(seed)
    points = np.stack(np.meshgrid(np.arange(12) * 30.0, np.arange(10) * 30.0), -1).reshape(-1, 2)
    points += rng.uniform(-4, 4, points.shape)
    sides = np.exp(1.5 + 0.006 * points[:, 1] + rng.normal(0, spread, len(points)))
    return points, sides


def test_one_wrong_size_stands_out_of_the_perspective():
    points, sides = grid()
    before, _ = trend.size_deviation(points, sides**2, 16)
    assert np.abs(before).max() < 2
    sides[65] /= 3
    sides[20] *= 3
    after, ratio = trend.size_deviation(points, sides**2, 16)
    assert after[65] < -8 and after[20] > 8
    assert ratio[65] == pytest.approx(1 / 3, rel=0.1) and ratio[20] == pytest.approx(3, rel=0.1)
    others = np.setdiff1d(np.arange(len(points)), [20, 65])
    assert np.abs(after[others]).max() < 2  # its neighbours do not suffer from it


def test_the_trend_is_a_plane_not_a_constant():
    # At the border all neighbours lie on one side: a local median alone would call the first and last rows odd.
    points, _ = grid()
    steep = np.exp(1.0 + 0.02 * points[:, 1])
    flat = np.median(np.log(steep)[trend._others(points, 16)], axis=1)
    found, _ = trend.size_deviation(points, steep**2, 16)
    assert np.abs(np.log(steep) - flat).max() > 0.8
    assert np.abs(found).max() * trend.LEAST_SPREAD < 0.4


def test_few_points_expect_nothing():
    rng = np.random.default_rng(1)
    for count in range(trend.FEWEST + 1):
        deviation, ratio = trend.size_deviation(rng.uniform(0, 50, (count, 2)), rng.uniform(1, 99, count), 16)
        assert deviation.tolist() == [0.0] * count and ratio.tolist() == [1.0] * count
    deviation, _ = trend.size_deviation(rng.uniform(0, 50, (8, 2)), [4, 4, 4, 4, 4, 4, 4, 4000], 16)
    assert deviation[7] > 5


def test_points_at_one_place_or_on_a_line_are_no_trouble():
    same = np.zeros((40, 2))
    line = np.stack([np.arange(40.0), np.zeros(40)], 1)
    for points in (same, line):
        deviation, ratio = trend.size_deviation(points, np.full(40, 25.0), 16)
        assert np.abs(deviation).max() < 1e-6 and ratio == pytest.approx(np.ones(40))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 50))
def test_the_trend_knows_no_scale(seed, scale):
    points, sides = grid(seed, 0.3)
    wanted, ratio = trend.size_deviation(points, sides**2, 12)
    found, other = trend.size_deviation(points * scale, (sides * scale) ** 2 + 0.0, 12)
    big = np.minimum(sides, sides * scale) > 1  # smaller areas than a pixel count as one
    if big.all():
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        np.testing.assert_allclose(other, ratio, rtol=1e-6)


# ---- score and words


def test_the_score_is_logistic_and_never_overflows():
    none, all_of = dict.fromkeys(tables.REASONS, 0.0), dict.fromkeys(tables.REASONS, 1.0)
    assert review.score(none, EVEN) == 0.5
    assert review.score({**none, "cut": 0.5}, EVEN) == pytest.approx(1 / (1 + math.exp(-0.5)))
    heavy = Review(bias=50.0, **dict.fromkeys(tables.REASONS, 50.0))
    assert review.score(all_of, heavy) == 1.0
    assert 0 <= review.score(none, Review(bias=-50.0)) < 1e-20


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=11, max_size=11), st.sampled_from(tables.REASONS), st.floats(0, 1))
def test_more_of_a_reason_is_never_a_lower_score(values, name, more):
    reasons = dict(zip(tables.REASONS, values, strict=True))
    higher = {**reasons, name: max(reasons[name], more)}
    assert 0 <= review.score(reasons, Review()) <= review.score(higher, Review()) <= 1


def test_words_name_the_strongest_reasons_by_weight():
    one = made(box(3, 3, 4, 4), (4.0, 4.0), source="circle", lost_px=48, stability=0.1, predicted_iou=0.3)
    found = review.measure(one, -6.0, H, W)
    reasons = {name: review.ramp(name, value) for name, value in found.items()}
    heavy = EVEN.model_copy(update={"small": 9.0, "lost": 5.0, "fallback": 4.0})
    assert review.in_words(one, found, reasons, 0.333, heavy) == (
        "0.33 of the side that its neighbours let expect; gave 75% of its pixels to neighbours; "
        "the exclusion circle stands in for SAM's mask"
    )
    off = EVEN.model_copy(update=dict.fromkeys(tables.REASONS, 0.0))
    assert review.in_words(one, found, reasons, 0.333, off) == ""
    only = off.model_copy(update={"low_iou": 1.0})
    assert review.in_words(one, found, reasons, 0.333, only) == "SAM expects an IoU of 0.30 only"


@pytest.mark.parametrize("name", tables.REASONS)
def test_every_reason_has_words(name):
    one = made(box(3, 3, 4, 4), (4.0, 4.0), source="pixel", sharing=3)
    reasons = {**dict.fromkeys(tables.REASONS, 0.0), name: 1.0}
    assert review.in_words(one, {**reasons, "long": 1.0}, reasons, 0.5, EVEN)


# ---- rows of an image


def rows(masks, points, *, verified=(), truth=None, added=()):
    image = {"split": "test", "image_id": "a", "height": H, "width": W}
    key = {"split": "test", "image_id": "a"}
    made_rows = [
        {**key, "point_id": i, "x": x, "y": y, "source": "sam", "verified": i in verified, "author": None,
         "score": None if i in added else 0.8, "radius_px": 9.0, "lost_px": 0, "area": mask.area, "sha256": "",
         **mask.columns()}
        for i, (mask, (x, y)) in enumerate(zip(masks, points, strict=True))
    ]  # fmt: skip
    known = {i: {"stability": 0.9, "sharing": 1, **mask.columns()} for i, mask in enumerate(masks) if i not in added}
    true = None if truth is None else {i: mask.columns() for i, mask in truth.items()}
    return review.image_rows(image, made_rows, known, known, true, Review())


def test_rows_of_an_image_fit_the_table_and_know_the_truth(tmp_path):
    masks = [disc(20, 20, 6), disc(50, 30, 6), box(70, 50, 4, 4)]
    points = [(20.0, 20.0), (50.0, 30.0), (-3.0, 70.0)]  # the last lies outside of the image
    found = rows(masks, points, verified=[1], truth={0: masks[0], 1: masks[0]}, added=[2])
    assert tables.write(tmp_path / "a.parquet", "review", found, version=1, settings="{}") == 3
    assert [row["true_iou"] for row in found] == [1.0, 0.0, None]
    assert found[1]["score"] == 0.0 and found[1]["reasons"] == "" and found[0]["score"] > 0
    assert found[2]["edge"] == 1.0 and found[2]["low_iou"] == found[2]["superpixel"] == 0.0
    assert (found[2]["x"], found[2]["y"]) == (-3.0, 70.0)  # as annotated


def test_an_image_without_masks():
    assert rows([], [], truth={}) == []
