"""Tests of the synthetic crowd renderer: exact truth, seeds, sizes and limits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from crowdmask.datasets import synthetic
from crowdmask.datasets.synthetic import Scene, render_scene

SMALL = {"height": 240, "width": 320}


def check_truth(scene: Scene, people: int) -> np.ndarray:
    """Asserts what every scene promises; returns the visible pixels per person."""
    height, width = scene.labels.shape
    assert scene.image.shape == (height, width, 3)
    assert scene.image.dtype == np.uint8
    assert scene.labels.dtype == np.int32
    assert scene.points_xy.shape == (people, 2)
    assert scene.points_xy.dtype == np.float64
    assert np.array_equal(np.unique(scene.labels[scene.labels > 0]), np.arange(1, people + 1))
    nearest = np.rint(scene.points_xy).astype(int)
    assert np.array_equal(scene.labels[nearest[:, 1], nearest[:, 0]], np.arange(1, people + 1))
    return np.bincount(scene.labels.ravel(), minlength=people + 1)[1:]


def test_same_seed_gives_the_same_bytes() -> None:
    first, second = render_scene(7, people=40, **SMALL), render_scene(7, people=40, **SMALL)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.points_xy.tobytes() == second.points_xy.tobytes()


def test_global_state_neither_matters_nor_changes() -> None:
    threads = cv2.getNumThreads()
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = render_scene(3, people=25, **SMALL)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert cv2.getNumThreads() == threads
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(first.image, render_scene(3, people=25, **SMALL).image)


def test_different_seeds_differ() -> None:
    first, second = render_scene(1, people=40, **SMALL), render_scene(2, people=40, **SMALL)
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.labels, second.labels)


@pytest.mark.parametrize("people", [0, 1, 2, 20, 150])
@pytest.mark.parametrize("seed", range(4))
def test_exact_people_each_seen_and_clicked(seed: int, people: int) -> None:
    visible = check_truth(render_scene(seed, people=people, **SMALL), people)
    assert (visible >= synthetic.MIN_VISIBLE_PIXELS).all()


def test_dense_scene_holds_1500() -> None:
    visible = check_truth(render_scene(11, people=1500), 1500)
    assert (visible >= synthetic.MIN_VISIBLE_PIXELS).all()


@pytest.mark.parametrize("size", [(301, 203), (97, 411), (255, 255), (64, 64)])
def test_portrait_odd_and_small_frames(size: tuple[int, int]) -> None:
    height, width = size
    scene = render_scene(5, height=height, width=width, people=12)
    assert scene.labels.shape == size
    check_truth(scene, 12)


def test_empty_scene_has_no_truth() -> None:
    scene = render_scene(4, people=0, **SMALL)
    assert not scene.labels.any()
    assert scene.points_xy.shape == (0, 2)
    assert scene.image.std() > 0


@pytest.mark.parametrize("people", [-1, 1501])
def test_people_out_of_range_raises(people: int) -> None:
    with pytest.raises(ValueError, match="people must be"):
        render_scene(0, people=people, **SMALL)


def test_tiny_frame_raises() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        render_scene(0, height=8, width=320, people=1)


@pytest.mark.parametrize("people", [200, 1500])
def test_impossible_crowd_raises(people: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        render_scene(0, height=48, width=48, people=people)


def test_nearer_heads_are_larger() -> None:
    upper, lower = [], []
    for seed in range(8):
        scene = render_scene(seed, people=120, height=480, width=640)
        area = check_truth(scene, 120)
        below = scene.points_xy[:, 1] > np.median(scene.points_xy[:, 1])
        upper.append(area[~below].mean())
        lower.append(area[below].mean())
    assert np.mean(lower) > 1.3 * np.mean(upper)
    assert np.sum(np.array(lower) > np.array(upper)) >= 6


def test_labels_are_where_the_layers_say() -> None:
    """The nearest layer that covers more than half of a pixel owns it."""
    rng = np.random.default_rng(9)
    camera = synthetic.plan_camera(rng, 200, 260, 30)
    style = synthetic.plan_style(rng, camera.pitch)
    items, labels, visible = synthetic.populate(rng, camera, style, 30)
    person = 0
    left = np.ones(labels.shape, bool)
    for item in reversed(items):
        rows, cols = item.sprite.window()
        free = left[rows, cols]
        if item.is_person:
            number = 30 - person
            person += 1
            own = (item.sprite.head > 127) & free
            assert np.array_equal(labels[rows, cols] == number, own)
            assert visible[number - 1] == own.sum()
        free &= item.sprite.alpha <= 127
    assert not labels[left].any()
    assert person == 30


def test_heads_come_in_many_sizes_and_pictures_in_many_tones() -> None:
    scenes = [render_scene(seed, people=30, **SMALL) for seed in range(12)]
    means = [scene.image.mean() for scene in scenes]
    areas = [np.count_nonzero(scene.labels) / 30 for scene in scenes]
    assert np.ptp(means) > 20
    assert max(areas) > 1.4 * min(areas)
