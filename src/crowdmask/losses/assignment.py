"""Which query answers for which head: PET's Hungarian matching, and the mask-supervised one of DPMO-RPS (OPET)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

DISTANCE_WEIGHT = 0.05
"""Cost of a pixel of distance, beside the probability (methods d.1)."""
NEAREST = 64
"""Background queries that a head without any query in its mask may choose from."""
LARGE = 1e6
"""Cost of a pair that must not be."""


def _costs(queries_xy: np.ndarray, points_xy: np.ndarray, probability: np.ndarray | None) -> np.ndarray:
    """float64 (q, m)."""
    difference = queries_xy[:, None].astype(np.float64) - points_xy[None].astype(np.float64)
    cost = DISTANCE_WEIGHT * np.hypot(difference[..., 0], difference[..., 1])
    return cost if probability is None else cost - np.asarray(probability, np.float64)[:, None]


def hungarian(queries_xy: np.ndarray, probability: np.ndarray | None, points_xy: np.ndarray) -> np.ndarray:
    """Query of each head with the least sum of `0.05 * distance - probability` (PET; methods d.1).

    Args:
        queries_xy: (q, 2) predicted points, pixels.
        probability: (q,) of a person; None = the distance alone.
        points_xy: (m, 2) heads, pixels.

    Returns:
        int64 (m,), no query twice; -1 where there are fewer queries than heads.
    """
    found = np.full(len(points_xy), -1, np.int64)
    if len(points_xy) and len(queries_xy):
        rows, columns = linear_sum_assignment(_costs(queries_xy, points_xy, probability))
        found[columns] = rows
    return found


def by_masks(
    queries_xy: np.ndarray, probability: np.ndarray | None, points_xy: np.ndarray, labels_hw: np.ndarray
) -> np.ndarray:
    """Query of each head by the masks that the predicted points lie in (DPMO-RPS eq. 4 to 6; methods d.2).

    One predicted point in a mask: matched. Several: the cheapest, and the others are background. None: a predicted
    point on the background, never one in somebody else's mask; heads that contend for those share them with the
    least sum, each choosing from its `NEAREST` cheapest ones. Only where these run out, any unused query, the cheapest
    pair first. Cost: `0.05 * distance - probability`, or the distance alone as printed.

    Args:
        queries_xy: (q, 2) predicted points, pixels; one outside of the map has the label at its border.
        probability: (q,) of a person; None = the printed rule.
        points_xy: (m, 2) heads, pixels.
        labels_hw: int (H, W): 0 background, i + 1 the mask of head i, other values nobody's.

    Returns:
        int64 (m,), no query twice; -1 where there are fewer queries than heads.
    """
    m, q = len(points_xy), len(queries_xy)
    found = np.full(m, -1, np.int64)
    if m == 0 or q == 0:
        return found
    height, width = labels_hw.shape
    pixel = np.floor(np.clip(queries_xy, 0, [width - 1, height - 1]) + 0.5).astype(np.int64)
    label = labels_hw[pixel[:, 1], pixel[:, 0]].astype(np.int64)
    chance = np.zeros(q) if probability is None else np.asarray(probability, np.float64)
    own = (label > 0) & (label <= m)
    inside = np.flatnonzero(own)
    if len(inside):
        head = label[inside] - 1
        away = queries_xy[inside].astype(np.float64) - points_xy[head]
        cost = DISTANCE_WEIGHT * np.hypot(away[:, 0], away[:, 1]) - chance[inside]
        order = np.lexsort((inside, cost, head))
        heads, first = np.unique(head[order], return_index=True)
        found[heads] = inside[order[first]]
    left = np.flatnonzero(found < 0)
    if len(left):
        _from_background(found, left, np.flatnonzero(label == 0), queries_xy, chance, points_xy)
    left = np.flatnonzero(found < 0)
    if len(left):
        _from_anywhere(found, left, queries_xy, chance, points_xy)
    return found


def _from_background(
    found: np.ndarray,
    left: np.ndarray,
    free: np.ndarray,
    queries_xy: np.ndarray,
    chance: np.ndarray,
    points_xy: np.ndarray,
) -> None:
    """Third case: the least sum over the heads that are left; fills `found`."""
    if len(free) == 0:
        return
    near = min(NEAREST, len(free))
    tree = cKDTree(queries_xy[free])
    _, nearest = tree.query(points_xy[left], k=near)
    columns, place = np.unique(np.asarray(nearest).reshape(len(left), near), return_inverse=True)
    cost = np.full((len(left), len(columns)), LARGE)
    rows = np.repeat(np.arange(len(left)), near)
    place = place.reshape(-1)
    away = queries_xy[free[columns[place]]].astype(np.float64) - points_xy[left[rows]]
    cost[rows, place] = DISTANCE_WEIGHT * np.hypot(away[:, 0], away[:, 1]) - chance[free[columns[place]]]
    for row, column in zip(*linear_sum_assignment(cost), strict=True):
        if cost[row, column] < LARGE:
            found[left[row]] = free[columns[column]]


def _from_anywhere(
    found: np.ndarray, left: np.ndarray, queries_xy: np.ndarray, chance: np.ndarray, points_xy: np.ndarray
) -> None:
    """No background query is left: the cheapest unused pair first; fills `found`."""
    unused = np.setdiff1d(np.arange(len(queries_xy)), found[found >= 0])
    cost = _costs(queries_xy[unused], points_xy[left], chance[unused])
    for place in np.argsort(cost, axis=None, kind="stable").tolist():
        query, head = divmod(place, len(left))
        if found[left[head]] < 0 and unused[query] >= 0:
            found[left[head]] = unused[query]
            unused[query] = -1
