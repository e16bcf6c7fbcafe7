"""How large a head should be here: a robust plane through the sizes of its neighbours, as perspective has it."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

FEWEST = 6
"""Neighbours below which nothing is expected (our choice)."""
ROUNDS = 4
"""Rounds of reweighting."""
RIDGE = 1.0
"""Weight of a slope of 0, as many neighbours at the typical distance (our choice): few or one-sided neighbours give the
local median, not a steep plane."""
LEAST_SPREAD = 0.1
"""Smallest spread of sizes in logarithms: 10 % of the side is never odd (our choice)."""


def size_deviation(points_xy: np.ndarray, areas: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """How far each mask's size is from what its neighbours' sizes and places let expect, in robust spreads.

    The logarithm of the square root of the area is fitted by a plane over (x, y) through the nearest neighbours, the
    mask itself left out: iteratively reweighted least squares with Tukey's biweight (c = 4.685) around their median,
    slopes held towards 0. The spread is 1.4826 times the median absolute residual of the neighbours, at least
    `LEAST_SPREAD`.

    Args:
        points_xy: float (N, 2), pixels.
        areas: (N,) pixels, at least 1.
        neighbours: How many neighbours are asked, where there are as many.

    Returns:
        Two float64 (N,): the deviation in spreads, positive = larger than expected, and the side (square root of the
        area) over the expected one. 0 and 1 for all where fewer than `FEWEST` neighbours are there.

    Source: our choice; biweight and its constant: Beaton and Tukey, 1974.
    """
    points = np.asarray(points_xy, float).reshape(-1, 2)
    count = min(neighbours, len(points) - 1)
    if count < FEWEST:
        return np.zeros(len(points)), np.ones(len(points))
    sizes = 0.5 * np.log(np.maximum(np.asarray(areas, float), 1.0))
    index = _others(points, count)
    values = sizes[index]
    offsets = points[index] - points[:, None, :]
    scale = np.median(np.hypot(offsets[..., 0], offsets[..., 1]), axis=1)
    offsets = offsets / np.maximum(scale, 1e-9)[:, None, None]
    design = np.concatenate([np.ones((*index.shape, 1)), offsets], axis=2)
    ridge = np.diag([0.0, RIDGE, RIDGE])
    plane = np.zeros((len(points), 3))
    plane[:, 0] = np.median(values, axis=1)
    for _ in range(ROUNDS):
        residual = values - np.einsum("nkj,nj->nk", design, plane)
        weight = np.clip(1 - (residual / (4.685 * _spread(residual)[:, None])) ** 2, 0, None) ** 2
        weighted = design * weight[..., None]
        left = np.einsum("nki,nkj->nij", weighted, design) + ridge
        right = np.einsum("nki,nk->ni", weighted, values)
        plane = np.linalg.solve(left, right[..., None])[..., 0]
    residual = values - np.einsum("nkj,nj->nk", design, plane)
    excess = sizes - plane[:, 0]
    return excess / _spread(residual), np.exp(excess)


def _spread(residual: np.ndarray) -> np.ndarray:
    return np.maximum(1.4826 * np.median(np.abs(residual), axis=1), LEAST_SPREAD)


def _others(points: np.ndarray, count: int) -> np.ndarray:
    """Rows of the `count` nearest other points of each, int64 (N, count); points at one place are others too."""
    _, near = cKDTree(points).query(points, k=count + 1)
    own = near == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True  # many at one place: the search may leave out the point itself
    return near[~own].reshape(len(points), count)
