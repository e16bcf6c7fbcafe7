"""Other masks from the same points, on drawn shapes with known answers."""

import numpy as np
import pytest

from crowdmask import tables
from crowdmask.ablation import baselines
from crowdmask.ablation.baselines import Scene
from crowdmask.ablation.candidates import smallest_covering
from crowdmask.config import BASELINES, Exclusion
from crowdmask.errors import DataError
from crowdmask.geometry import squared_distance
from crowdmask.masks.rle import Window, digest
from crowdmask.metrics.baselines import random_walker_masks
from crowdmask.metrics.instances import paired_iou

HEIGHT, WIDTH = 90, 120
POINTS = np.array([[25.0, 30.0], [60.0, 30.0], [85.0, 60.0]])
RADII = np.array([35.0, 35.0, 39.0])
DISCS = (10, 12, 9)


def disc(x, y, radius):
    return squared_distance(x, y, 0, 0, WIDTH, HEIGHT) <= radius**2


def square(x0, y0, side):
    return Window(x0, y0, np.ones((side, side), bool))


@pytest.fixture
def scene():
    """Bright discs on a dark ground with some noise."""
    photo = np.full((HEIGHT, WIDTH, 3), 40.0)
    truth = [Window(0, 0, disc(x, y, r)).tight() for (x, y), r in zip(POINTS, DISCS, strict=True)]
    for window, grey in zip(truth, (200, 160, 220), strict=True):
        photo[window.full(HEIGHT, WIDTH)] = grey
    photo += np.random.default_rng(0).normal(0, 4, photo.shape)
    parts = [square(int(x) - 6, int(y) - 6, 13) for x, y in POINTS]
    candidates = [square(0, 0, 90), square(15, 20, 21), square(20, 25, 9), square(50, 20, 22), square(61, 31, 3)]
    return Scene(POINTS, RADII, HEIGHT, WIDTH, parts, truth, candidates, np.clip(photo, 0, 255).astype(np.uint8))


def full(made):
    return np.array([window.full(HEIGHT, WIDTH) for window, _ in made])


@pytest.mark.parametrize("name", BASELINES)
def test_each_baseline_has_a_mask_a_point(name, scene):
    made = baselines.masks(name, scene)
    assert len(made) == 3
    for (window, source), (x, y) in zip(made, POINTS.astype(int), strict=True):
        assert window.area > 0 and window.full(HEIGHT, WIDTH)[y, x] and source in (name, "circle", "sam", "pixel")
        assert window.tight().mask.shape == window.mask.shape


def test_circles_overlap_or_are_shared_by_distance(scene):
    drawn = np.array([disc(x, y, r) for (x, y), r in zip(POINTS, RADII, strict=True)])
    made = baselines.masks("circle", scene)
    np.testing.assert_array_equal(full(made), drawn)
    assert [source for _, source in made] == ["circle"] * 3
    shared = full(baselines.masks("circle_disjoint", scene))
    distance = np.array([squared_distance(x, y, 0, 0, WIDTH, HEIGHT) for x, y in POINTS])
    nearest = np.where(drawn, distance, np.inf).argmin(0)
    np.testing.assert_array_equal(shared, [(nearest == k) & drawn.any(0) for k in range(3)])


def test_superpixels_alone_and_within_the_circle(scene):
    small = Scene(POINTS, np.full(3, 5.0), *(HEIGHT, WIDTH), scene.superpixels, scene.truth, (), None)
    np.testing.assert_array_equal(
        full(baselines.masks("superpixel", small)), [w.full(HEIGHT, WIDTH) for w in scene.superpixels]
    )
    np.testing.assert_array_equal(full(baselines.masks("superpixel_circle", small)), [disc(x, y, 5) for x, y in POINTS])


def test_the_oracle_is_the_true_mask_within_the_circle(scene):
    small = Scene(POINTS, np.array([4.0, 50.0, 50.0]), *(HEIGHT, WIDTH), scene.superpixels, scene.truth, (), None)
    made = full(baselines.masks("oracle", small))
    np.testing.assert_array_equal(made[0], disc(25, 30, 4))
    np.testing.assert_array_equal(made[1:], [w.full(HEIGHT, WIDTH) for w in scene.truth[1:]])


@pytest.mark.parametrize("name", ["watershed", "random_walker"])
def test_methods_that_look_find_drawn_discs(name, scene):
    made = baselines.masks(name, scene)
    assert paired_iou([w for w, _ in made], scene.truth).min() > 0.85
    assert full(made).sum(0).max() == 1


def test_the_random_walker_stays_within_its_circle_and_gives_the_marker_where_there_is_no_contrast(scene):
    radii = np.array([6.0, 8.0, 7.0])
    made = random_walker_masks(scene.photo, POINTS, radii)
    for window, (x, y), radius in zip(made, POINTS, radii, strict=True):
        assert not (window.full(HEIGHT, WIDTH) & ~disc(x, y, radius)).any()
    flat = random_walker_masks(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), POINTS, np.full(3, 20.0))
    np.testing.assert_array_equal([w.full(HEIGHT, WIDTH) for w in flat], [disc(x, y, 3) for x, y in POINTS])
    assert random_walker_masks(scene.photo, np.zeros((0, 2)), np.zeros(0)) == []
    tiny = random_walker_masks(scene.photo, POINTS, np.full(3, 0.2))  # no room for walkers: the pixel
    assert [w.area for w in tiny] == [1, 1, 1]


def test_of_points_at_one_place_the_first_walks_and_the_others_keep_nothing_or_a_pixel(scene):
    points = np.array([[25.0, 30.0], [25.0, 30.0]])
    made = random_walker_masks(scene.photo, points, np.full(2, 20.0))
    assert made[0].area > 100 and made[1].area == 0
    twins = Scene(points, np.full(2, 20.0), HEIGHT, WIDTH, (), (), (), scene.photo)
    assert [source for _, source in baselines.masks("random_walker", twins)] == ["random_walker", "pixel"]


# ---- the two rules that give automatic masks to points


def test_the_smallest_candidate_that_covers_a_point(scene):
    assert smallest_covering(scene.candidates, POINTS, HEIGHT, WIDTH).tolist() == [2, 3, 0]
    assert smallest_covering(scene.candidates[1:], POINTS, HEIGHT, WIDTH).tolist() == [1, 2, -1]
    assert smallest_covering([], POINTS, HEIGHT, WIDTH).tolist() == [-1, -1, -1]
    assert smallest_covering(scene.candidates, np.zeros((0, 2)), HEIGHT, WIDTH).tolist() == []
    twins = [square(20, 25, 9), square(21, 26, 9)]
    assert smallest_covering(twins, POINTS[:1], HEIGHT, WIDTH).tolist() == [0]  # of equal size the first


def test_a_hole_does_not_cover_and_a_pixel_is_that_of_the_rounded_point():
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    masks = [square(0, 0, 30), Window(10, 10, ring)]
    points = np.array([[14.0, 14.0], [10.0, 10.0], [18.5, 12.0], [18.49, 12.0]])
    assert smallest_covering(masks, points, 40, 40).tolist() == [0, 1, 0, 1]


def test_every_point_against_looking_at_all_candidates():
    rng = np.random.default_rng(3)
    masks = [
        Window(int(x), int(y), rng.random((h, w)) < 0.7)
        for x, y, h, w in zip(*rng.integers(0, 40, (2, 60)), *rng.integers(1, 20, (2, 60)), strict=True)
    ]
    points = rng.uniform(-2, 62, (200, 2))
    found = smallest_covering(masks, points, 60, 60)
    drawn = np.array([m.full(60, 60) for m in masks])
    area = drawn.sum((1, 2))
    for (x, y), index in zip(np.clip(np.floor(np.clip(points, 0, 59) + 0.5), 0, 59).astype(int), found, strict=True):
        over = np.flatnonzero(drawn[:, y, x])
        assert index == (min(over, key=lambda k: (masks[k].area, k)) if len(over) else -1)
    assert area.min() >= 0 and (found >= 0).sum() > 50


def test_where_no_candidate_covers_the_point_it_has_its_pixel_or_its_circle(scene):
    less = Scene(POINTS, RADII, HEIGHT, WIDTH, scene.superpixels, scene.truth, scene.candidates[1:], None)
    plain, circled = baselines.masks("smallest", less), baselines.masks("smallest_circle", less)
    assert [source for _, source in plain] == ["sam", "sam", "pixel"]
    assert [source for _, source in circled] == ["sam", "sam", "circle"]
    assert plain[2][0].area == 1
    np.testing.assert_array_equal(circled[2][0].full(HEIGHT, WIDTH), disc(85, 60, 39))
    for a, b in zip(plain[:2], circled[:2], strict=True):
        assert a[0].columns() == b[0].columns()


# ---- the stage


def test_rows_of_the_masks_table(tmp_path, scene):
    key = {"split": "test", "image_id": "i"}
    points = [{"point_id": k, "x": x, "y": y, "outside": False, **tables.NO_BOX} for k, (x, y) in enumerate(POINTS)]
    image = {
        **key,
        "path": "none.png",
        "height": HEIGHT,
        "width": WIDTH,
        "mode": "RGB",
        "sha256": "0",
        "points": points,
    }
    parts = [
        {**key, "point_id": k, "superpixel": k + 1, "sharing": 1, **w.columns()}
        for k, w in enumerate(scene.superpixels)
    ]
    truth = [{**key, "point_id": k, "instance_id": k + 1, **w.columns()} for k, w in enumerate(scene.truth)]
    empty = {**image, "image_id": "nobody", "points": []}
    settings = Exclusion(r_max=20.0)
    made = list(baselines.rows("oracle", [image, empty], parts, truth[::-1], (), str(tmp_path), "stored", settings))
    assert tables.write(tmp_path / "m.parquet", "masks", made, version=1, settings="{}") == 3
    for row, window in zip(made, scene.truth, strict=True):
        assert (row["radius_px"], row["area"], row["sha256"]) == (20.0, window.area, digest(window))
        assert Window.from_columns(row).full(HEIGHT, WIDTH).tolist() == window.full(HEIGHT, WIDTH).tolist()
    with pytest.raises(DataError, match="test/i: 3 points but 2 superpixel parts"):
        list(baselines.rows("circle", [image], parts[1:], truth, (), str(tmp_path), "stored", settings))
    with pytest.raises(DataError, match="test/i: 3 points but 0 true masks"):
        list(baselines.rows("circle", [image], parts, (), (), str(tmp_path), "stored", settings))
