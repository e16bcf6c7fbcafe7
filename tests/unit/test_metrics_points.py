"""Localisation and counting: golden values, brute force, torchmetrics and networkx."""

import itertools

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from crowdmask.metrics import counting, localisation

SEEDS = st.integers(0, 2**32 - 1)


def test_most_pairs_count_not_the_nearest():
    """Distances [[0, 5], [5, 5.5]] and sigma 5: nearest first, or the least total distance, find one; there are 2."""
    pred = np.array([[0.0, 0.0], [5.0, 0.0]])
    # Head 0 on prediction 0; head 1 is 5 away from it, and 5.5 from prediction 1.
    x = (25 + 25 - 5.5**2) / 10
    true = np.array([[0.0, 0.0], [x, -np.sqrt(25 - x * x)]])
    distances = np.hypot(*(pred[:, None] - true[None]).transpose(2, 0, 1))
    np.testing.assert_allclose(distances, [[0, 5], [5, 5.5]], atol=1e-12)
    assert localisation.found(pred, true, np.full(2, 5.0 + 1e-9)).tolist() == [True, True]
    assert localisation.found(pred, true, np.full(2, 4.9)).sum() == 1


def brute(pred, true, sigma):
    near = np.hypot(*(pred[:, None] - true[None]).transpose(2, 0, 1)) <= sigma
    size = min(len(pred), len(true))
    return max(
        (
            sum(near[i, j] for i, j in zip(rows, columns, strict=True))
            for rows in itertools.combinations(range(len(pred)), size)
            for columns in itertools.permutations(range(len(true)), size)
        ),
        default=0,
    )


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, preds=st.integers(0, 4), trues=st.integers(0, 4))
def test_as_many_as_possible(seed, preds, trues):
    rng = np.random.default_rng(seed)
    pred, true = rng.integers(0, 8, (preds, 2)).astype(float), rng.integers(0, 8, (trues, 2)).astype(float)
    sigma = rng.integers(0, 6, trues).astype(float)
    hit = localisation.found(pred, true, sigma)
    assert hit.shape == (trues,) and hit.sum() == brute(pred, true, sigma)


def test_thousands_of_points_against_networkx():
    rng = np.random.default_rng(1)
    pred, true = rng.uniform(0, 300, (2000, 2)), rng.uniform(0, 300, (2100, 2))
    sigma = rng.uniform(1, 8, 2100)
    near = np.argwhere(np.hypot(*(pred[:, None] - true[None]).transpose(2, 0, 1)) <= sigma)
    graph = networkx.Graph()
    graph.add_nodes_from(("p", i) for i in range(2000))
    graph.add_edges_from((("p", int(i)), ("t", int(j))) for i, j in near)
    expected = networkx.bipartite.hopcroft_karp_matching(graph, [("p", i) for i in range(2000)])
    assert localisation.found(pred, true, sigma).sum() == len(expected) // 2


def test_radii_and_levels():
    boxes = np.array([[3, 4], [10, 1], [10, 10], [10, 11], [1000, 100], [1000, 101], [5, 3], [0, 0]])
    small, large = localisation.sigmas(boxes)
    assert small.tolist() == [1, 0, 5, 5, 50, 50, 1, 0]
    assert large.tolist() == [2, 5, 7, 7, 502, 502, 2, 0]
    assert localisation.levels(boxes).tolist() == [1, 0, 1, 2, 4, 5, 1, 0]
    assert localisation.levels(np.array([[11, 1], [1000, 1], [1001, 1], [100000, 1], [10000, 1]])).tolist() == [
        1,
        2,
        3,
        4,
        3,
    ]
    for empty in localisation.sigmas(np.zeros((0, 2))):
        assert empty.shape == (0,)


def test_too_many_near_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(localisation, "MAX_PAIRS", 8)
    with pytest.raises(ValueError, match="more than 8 pairs"):
        localisation.found(np.zeros((3, 2)), np.zeros((3, 2)), np.ones(3))


# ---- counting


def naive_game(pred, true, height, width, level):
    """Cell by cell."""
    cells, total = 2**level, 0
    for row in range(cells):
        for column in range(cells):
            counts = []
            for points in (pred, true):
                x, y = (points[:, 0] + 0.5) / width * cells, (points[:, 1] + 0.5) / height * cells
                inside = (x >= column) | (column == 0)
                inside &= (x < column + 1) | (column == cells - 1)
                inside &= (y >= row) | (row == 0)
                inside &= (y < row + 1) | (row == cells - 1)
                counts.append(np.count_nonzero(inside))
            total += abs(counts[0] - counts[1])
    return total


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, level=st.integers(0, 3), height=st.sampled_from([8, 32, 37]), width=st.sampled_from([1, 16, 50]))
def test_cells_equal_the_plain_count(seed, level, height, width):
    rng = np.random.default_rng(seed)
    points = [rng.integers(-3, 60, (rng.integers(0, 20), 2)) + rng.choice([0, 0.5], 2) for _ in range(2)]
    found = counting.game(*points, height, width, level)
    if height in (8, 32) and width in (1, 16):  # cells of a whole number of pixels, or powers of two of one
        assert found == naive_game(*points, height, width, level)
    assert counting.game(*points, height, width, 0) == abs(len(points[0]) - len(points[1]))
    assert found >= abs(len(points[0]) - len(points[1]))


def test_a_point_between_two_cells_belongs_to_the_right_or_lower_one():
    at = np.array([[3.5, 3.5]])
    for other, differs in (([3.4, 3.5], 2), ([3.5, 3.4], 2), ([3.6, 3.6], 0), ([7.4, 7.4], 0), ([-9, -9], 2)):
        assert counting.game(at, np.array([other]), 8, 8, 1) == differs
    assert counting.game(np.array([[7.5, 0]]), np.array([[99.0, 0]]), 8, 8, 3) == 0  # the last cell has its far edge


def test_errors_against_torchmetrics():
    rng = np.random.default_rng(0)
    pred, true = rng.integers(0, 50, 40), rng.integers(0, 50, 40)
    true[:3] = 0
    table = np.array([counting.errors(int(p), int(t)) for p, t in zip(pred, true, strict=True)])
    mae, mse = MeanAbsoluteError(), MeanSquaredError(squared=False)
    for metric in (mae, mse):
        metric.update(torch.tensor(pred, dtype=torch.float64), torch.tensor(true, dtype=torch.float64))
    assert table[:, 0].mean() == pytest.approx(mae.compute().item(), rel=1e-6)
    assert np.sqrt(table[:, 1].mean()) == pytest.approx(mse.compute().item(), rel=1e-6)
    some = true > 0
    assert table[:, 2].sum() / some.sum() == pytest.approx(np.mean(np.abs(pred - true)[some] / true[some]))
    assert counting.errors(5, 0) == (5.0, 25.0, 0.0)
