"""Mask-supervised matching: its cases by hand, equality with PET's on discs, and what must always hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask.losses.assignment import by_masks, hungarian


def square_labels() -> np.ndarray:
    """Masks of heads 0 (x 0 to 9), 1 (x 20 to 29) on 20 x 40 pixels."""
    labels = np.zeros((20, 40), int)
    labels[:10, 0:10], labels[:10, 20:30] = 1, 2
    return labels


POINTS = np.array([[5.0, 5.0], [25.0, 5.0]])


def test_golden_case_one_point_in_the_mask() -> None:
    queries = np.array([[30.0, 15.0], [1.0, 1.0], [29.0, 9.0]])
    assert by_masks(queries, None, POINTS, square_labels()).tolist() == [1, 2]


def test_golden_case_several_points_in_the_mask() -> None:
    queries = np.array([[1.0, 1.0], [4.0, 5.0], [9.0, 9.0], [25.0, 5.0]])
    assert by_masks(queries, None, POINTS, square_labels()).tolist() == [1, 3]
    # The probability may outweigh the distance: 5.66 px cost 0.28 less than a sure person gains.
    sure = np.array([0.9, 0.1, 0.1, 0.5])
    assert by_masks(queries, sure, POINTS, square_labels()).tolist() == [0, 3]


def test_golden_case_no_point_in_the_mask() -> None:
    # Query 0 is nearest to head 1 but lies in the mask of head 0: the background's has it.
    labels = square_labels()
    labels[:10, 10:20] = 1
    queries = np.array([[19.0, 5.0], [5.0, 5.0], [25.0, 18.0]])
    assert by_masks(queries, None, POINTS, labels).tolist() == [1, 2]
    assert hungarian(queries, None, POINTS).tolist() == [1, 0]


def test_golden_conflict_over_a_background_point() -> None:
    # Both heads want query 0; the least sum gives it to head 1, which has nothing else near.
    points = np.array([[10.0, 5.0], [14.0, 5.0]])
    queries = np.array([[12.0, 15.0], [4.0, 15.0], [39.0, 19.0]])
    labels = np.zeros((20, 40), int)
    labels[4:7, 9:12], labels[4:7, 13:16] = 1, 2
    assert by_masks(queries, None, points, labels).tolist() == [1, 0]


def test_no_background_left_takes_any_unused() -> None:
    queries = np.array([[1.0, 1.0], [2.0, 2.0]])
    assert by_masks(queries, None, POINTS, square_labels()).tolist() == [1, 0]
    assert by_masks(queries[:1], None, POINTS, square_labels()).tolist() == [0, -1]
    assert by_masks(queries[:0], None, POINTS, square_labels()).tolist() == [-1, -1]
    assert by_masks(queries, None, POINTS[:0], square_labels()).tolist() == []


def test_foreign_labels_are_nobodys() -> None:
    labels = square_labels()
    labels[labels == 2] = -1  # a head that was cropped away
    queries = np.array([[25.0, 5.0], [9.0, 15.0]])
    assert by_masks(queries, None, POINTS[:1], labels).tolist() == [1]


def discs(points: np.ndarray, radius: float, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), int)
    for i, (px, py) in enumerate(points):
        labels[(x - px) ** 2 + (y - py) ** 2 <= radius**2] = i + 1
    return labels


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("use_probability", [True, False])
def test_golden_discs_agree_with_hungarian(seed: int, use_probability: bool) -> None:
    """One query in each disc, discs far apart: both ways find the same."""
    rng = np.random.default_rng(seed)
    points = np.array(list(itertools.product(range(20, 200, 40), range(20, 160, 40))), float) + rng.uniform(
        -4, 4, (20, 2)
    )
    angle, far = rng.uniform(0, 2 * np.pi, 20), rng.uniform(0, 7, 20)
    queries = points + np.stack([far * np.cos(angle), far * np.sin(angle)], 1)
    order = rng.permutation(20)
    chance = rng.uniform(0.4, 0.6, 20) if use_probability else None
    labels = discs(points, 9, 160, 200)
    found = by_masks(queries[order], chance, points, labels)
    assert found.tolist() == hungarian(queries[order], chance, points).tolist() == np.argsort(order).tolist()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 30), st.integers(0, 12))
def test_always_one_to_one(seed: int, q: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    points, queries = rng.uniform(0, [39, 29], (m, 2)), rng.uniform(-3, [43, 33], (q, 2))
    labels = discs(points, 4, 30, 40)
    chance = rng.random(q)
    found = by_masks(queries, chance, points, labels)
    used = found[found >= 0]
    assert len(set(used.tolist())) == len(used) == min(q, m)
    pixel = np.floor(np.clip(queries, 0, [39, 29]) + 0.5).astype(int)
    label = labels[pixel[:, 1], pixel[:, 0]]
    for head in range(m):
        mine = np.flatnonzero(label == head + 1)
        if len(mine):
            cost = 0.05 * np.hypot(*(queries[mine] - points[head]).T) - chance[mine]
            assert found[head] == mine[np.argmin(cost)]
