"""Points against true heads, as the NWPU-Crowd benchmark measures them (Wang et al. 2020; IIM).

A prediction may belong to a head when it is at most sigma away from its point; each prediction to one head at most, and
as many as possible: a matching of maximum cardinality, not the one with the shortest distances.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from crowdmask.metrics.matching import MAX_PAIRS

LEVEL_LIMITS = (10, 100, 1_000, 10_000, 100_000)
"""Largest box areas of the levels A0 to A4, pixels; A5 is larger. (The benchmark's own code counts areas of exactly
these sizes as A0; here they end their levels, as the paper has it.)"""
LEVEL_NAMES = tuple(f"a{k}" for k in range(len(LEVEL_LIMITS) + 1))


def sigmas(boxes_wh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Small and large radius of each head: the whole pixels of min(w, h) / 2 and of sqrt(w^2 + h^2) / 2.

    IIM prints sqrt(w^2 + h^2 / 2), a typing error; the benchmark's code has the half diagonal.

    Args:
        boxes_wh: (G, 2), width and height of each head's box, pixels.

    Returns:
        float64 (G,) each.
    """
    wh = np.asarray(boxes_wh, np.float64).reshape(-1, 2)
    return np.floor(wh.min(axis=1, initial=math.inf) / 2), np.floor(np.hypot(wh[:, 0], wh[:, 1]) / 2)


def levels(boxes_wh: np.ndarray) -> np.ndarray:
    """Level of each head by its box's area, int64 (G,): 0 for [0, 10], 1 for (10, 100], ..., 5 above 100,000 pixels."""
    wh = np.asarray(boxes_wh, np.float64).reshape(-1, 2)
    return np.searchsorted(LEVEL_LIMITS, wh[:, 0] * wh[:, 1], side="left")


def found(pred_xy: np.ndarray, true_xy: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Which heads have a prediction of their own, bool (G,).

    Of the matchings with most pairs one is taken, which may matter for the recall of a level, never for the number.

    Args:
        pred_xy: float (P, 2), pixels.
        true_xy: float (G, 2), pixels.
        sigma: float (G,), largest distance of each head, pixels.

    Raises:
        ValueError: more than `MAX_PAIRS` pairs are near enough.
    """
    pred, true = (np.asarray(points, np.float64).reshape(-1, 2) for points in (pred_xy, true_xy))
    hit = np.zeros(len(true), bool)
    if not len(pred) or not len(true):
        return hit
    tree, reach = cKDTree(pred), np.asarray(sigma, np.float64)
    lengths = tree.query_ball_point(true, reach, return_length=True)
    if lengths.sum() > MAX_PAIRS:
        raise ValueError(f"more than {MAX_PAIRS} pairs of a point and a head are near enough in one image")
    near = tree.query_ball_point(true, reach)
    row = np.repeat(np.arange(len(true)), lengths)
    column = np.concatenate([np.asarray(some, np.int64) for some in near])
    graph = coo_matrix((np.ones(len(row), np.int8), (row, column)), shape=(len(true), len(pred))).tocsr()
    hit[maximum_bipartite_matching(graph, perm_type="column") >= 0] = True
    return hit
